#include "delta/delta.inl"
#include "simd/lanes_avx512.h"

namespace edge {

const DeltaKernels delta_avx512 = delta_kernels<avx512::Lanes>();

}  // namespace edge
