#include "conv/conv.inl"
#include "simd/lanes_avx2.h"

namespace edge {

const ConvKernels conv_avx2 = conv_kernels<avx2::Lanes>();

}  // namespace edge
