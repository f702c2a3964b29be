#include "attention/attention.inl"
#include "simd/lanes_neon.h"

namespace edge {

const AttentionKernels attention_neon = attention_kernels<neon::Lanes>();

}  // namespace edge
