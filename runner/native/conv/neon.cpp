#include "conv/conv.inl"
#include "simd/lanes_neon.h"

namespace edge {

const ConvKernels conv_neon = conv_kernels<neon::Lanes>();

}  // namespace edge
