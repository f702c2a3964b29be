#include "attention/attention.inl"
#include "simd/lanes_scalar.h"

namespace edge {

uint64_t kv_state_bytes(int32_t kv_heads, int32_t head_dim, KvType type) {
  uint64_t columns = uint64_t(head_dim) + uint64_t(round_up(head_dim, kLanes));
  uint64_t row = type == KvType::f32   ? 4 * columns
                 : type == KvType::f16 ? 2 * columns
                                       : columns + 2 * sizeof(float);  // the scales
  return row * uint64_t(kv_heads) * kBlockTokens;
}

const AttentionKernels attention_scalar = attention_kernels<scalar::Lanes>();

}  // namespace edge
