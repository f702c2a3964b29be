#include "delta/delta.inl"
#include "simd/lanes_neon.h"

namespace edge {

const DeltaKernels delta_neon = delta_kernels<neon::Lanes>();

}  // namespace edge
