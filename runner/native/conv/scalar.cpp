#include "conv/conv.inl"
#include "simd/lanes_scalar.h"

namespace edge {

uint64_t rows_state_bytes(int32_t width) {
  return sizeof(float) * uint64_t(round_up(width, kLanes)) * kBlockTokens;
}

const ConvKernels conv_scalar = conv_kernels<scalar::Lanes>();

}  // namespace edge
