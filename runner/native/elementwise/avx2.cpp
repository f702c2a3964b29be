#include "elementwise/elementwise.inl"
#include "simd/lanes_avx2.h"

namespace edge {

const ElementwiseKernels elementwise_avx2 = elementwise_kernels<avx2::Lanes>();

}  // namespace edge
