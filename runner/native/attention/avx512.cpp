#include "attention/attention.inl"
#include "simd/lanes_avx512.h"

namespace edge {

const AttentionKernels attention_avx512 = attention_kernels<avx512::Lanes>();

}  // namespace edge
