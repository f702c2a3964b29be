#include "attention/attention.inl"
#include "simd/lanes_scalar.h"

namespace edge {

uint64_t kv_state_bytes(int32_t kv_heads, int32_t head_dim, KvType type) {
  uint64_t columns = uint64_t(head_dim) + uint64_t(round_up(head_dim, kLanes));
  return columns * uint64_t(kv_heads) * kPageTokens * (type == KvType::f16 ? 2 : 4);
}

const AttentionKernels attention_scalar = attention_kernels<scalar::Lanes>();

}  // namespace edge
