#include "conv/conv.inl"
#include "simd/lanes_avx512.h"

namespace edge {

const ConvKernels conv_avx512 = conv_kernels<avx512::Lanes>();

}  // namespace edge
