#include "elementwise/elementwise.inl"
#include "simd/lanes_avx512.h"

namespace edge {

const ElementwiseKernels elementwise_avx512 = elementwise_kernels<avx512::Lanes>();

}  // namespace edge
