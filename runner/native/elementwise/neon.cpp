#include "elementwise/elementwise.inl"
#include "simd/lanes_neon.h"

namespace edge {

const ElementwiseKernels elementwise_neon = elementwise_kernels<neon::Lanes>();

}  // namespace edge
