// Paged, grouped-query attention: causal, or to the rows behind it too, as far as a step has
// written them. Then a text has the bits of being computed whole, so that it must be one step's.
//
// A block holds kBlockTokens positions of one sequence for all states of a group; a state's part
// is
//   kv_heads times: keys   [head_dim][kBlockTokens]  (lanes are tokens: no horizontal sums)
//                   values [kBlockTokens][head_dim padded to 16]
// in f32, f16 or i8. `write` stores the step's keys and values; after a barrier `attend` reads all
// of them back from the cache, in blocks at absolute multiples of kBlockTokens, with an online
// softmax whose sums run in 16 virtual lanes and one fixed tree. Masked positions are never read
// into arithmetic.
//
// With i8, the float32 scales [kBlockTokens] of a kv head's keys follow those keys, and those of
// its values the values. A token's row x of one head is written once, as
//   s = max|x| / 127, at least the smallest normal float32; NaN if some x is not finite
//   q = round_half_even(clamp(x * (1 / s), -127, 127))
// and one query row, scaled beforehand, computes in this order, each step rounded to float32:
//   score[j]  = (sum over i of q[i] * float(key[i][j])) * key_scale[j]   fused, i ascending
//   weight[j] = e^(capped score[j] - maximum)                            summed up in `totals`
//   out[i]   += (weight[j] * value_scale[j]) * float(value[j][i])        fused, j ascending
// A sink is where the maximum begins, with a weight of 1 in the total; else they begin at -inf and
// 0. With f32 and f16 there are no scales to multiply by; the rest is the same.
#pragma once

#include "core/kernel.h"

namespace edge {

enum class KvType : int32_t { f32, f16, i8 };

struct KvState {
  int32_t kv_heads = 0, head_dim = 0;
  KvType type = KvType::f16;
};

// A rotary embedding (rope/rope.h) of each head that comes before all else; cos null: none.
struct Rotation {
  const float *cos = nullptr, *sin = nullptr;  // [.., cols], by position
  int32_t cols = 0;
};

struct AttentionArgs : Pages {
  KvState state;
  int32_t heads = 0;
  int32_t window = 0;  // 0: none
  bool bidirectional = false;
  float scale = 1.0f;
  float softcap = 0.0f;  // 0: none
  Matrix q;              // [rows, heads * head_dim], of tokens in any order
  Matrix k, v;           // [T, kv_heads * head_dim]
  Rotation rotate_q, rotate_k;
  const float* sinks = nullptr;  // [heads], or null: a score more, which is the first of all
  Matrix out;                    // [T, heads * head_dim]; may be q
  uint8_t* scratch = nullptr;    // scratch_bytes per worker, worker-major
};

// Bytes of one state in one block, a multiple of 64.
uint64_t kv_state_bytes(int32_t kv_heads, int32_t head_dim, KvType type);

struct AttentionKernels {
  size_t (*scratch_bytes)(const AttentionArgs& args);  // per worker; a multiple of 64
  void (*write)(const AttentionArgs& args, Worker worker);
  void (*attend)(const AttentionArgs& args, Worker worker);
};

extern const AttentionKernels attention_scalar;
extern const AttentionKernels attention_avx2;
extern const AttentionKernels attention_avx512;
extern const AttentionKernels attention_neon;

}  // namespace edge
