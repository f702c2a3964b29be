#include "delta/delta.inl"
#include "simd/lanes_avx2.h"

namespace edge {

const DeltaKernels delta_avx2 = delta_kernels<avx2::Lanes>();

}  // namespace edge
