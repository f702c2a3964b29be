#include "attention/attention.inl"
#include "simd/lanes_avx2.h"

namespace edge {

const AttentionKernels attention_avx2 = attention_kernels<avx2::Lanes>();

}  // namespace edge
