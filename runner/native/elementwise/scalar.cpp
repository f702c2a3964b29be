#include "elementwise/elementwise.inl"
#include "simd/lanes_scalar.h"

namespace edge {

const ElementwiseKernels elementwise_scalar = elementwise_kernels<scalar::Lanes>();

}  // namespace edge
