// Recurrences over a paged fold: the gated delta rule (arXiv 2412.06464) and the state-space dual
// of Mamba-2 (arXiv 2405.21060), and the gates that they take.
//
// A value head has a matrix S [k_dim][v_dim], which token t decays by a_t in [0, 1], and to which
// it adds its key times an update; it reads S by its query:
//   S' = a_t S,  S = S' + k_t u_t^T,  o_t = S q_t
// The delta rule corrects by strength b_t, its q and k being normalized: u_t = b_t (v_t - S' k_t).
// The state space takes a step d_t: u_t = d_t v_t, a_t = e^(-e^rate * d_t), and o_t is skip * v_t
// more; its k are Mamba's B, its q Mamba's C.
// Value head h reads the queries and keys of key head h / (heads / key_heads).
//
// It is evaluated row by row inside absolute blocks of kFoldRows positions, of which S0 is the
// matrix before. w(j, t) = a_t * ... * a_(j+1), multiplied from t downwards, is what is left of row
// j at row t; w(t), of S0. Each step is rounded to float32, `fma` once:
//   S0x[c]  = sum over i of x[i] * S0[i][c]                    fused, i ascending, for x = k, q
//   xy      = sum over i of x[i] * y[i]                        16 lanes, one tree
//   p[c]    = w(t) * S0k[c], then += (w(j, t) * kk_j) * u_j[c] fused, j ascending below t
//   u_t[c]  = b_t * (v_t[c] - p[c])                            or d_t * v_t[c], without p
//   o_t[c]  = w(t) * S0q[c], then += (w(j, t) * qk_j) * u_j[c] fused, j ascending up to t
//             and, of a state space, += skip * v_t[c]          fused
// and the matrix behind a whole block, whose last row is t,
//   S[i][c] = w(t) * S0[i][c], then += (w(j, t) * k_j[i]) * u_j[c]     fused, j ascending
// So what a token gives depends on the tokens before it alone: not on how many rows are computed at
// once, nor on what was computed before and is no longer there.
//
// A page holds kBlockTokens positions of one sequence for all states of a group. The value heads of
// a key head are kept in parts of at most kFoldHeads, as equal as can be, each with a copy of the
// keys: parts are what workers share out, and never meet. A part is, each vector padded to 16
// floats,
//   block    int32, then padding: the block inside the page that `current` is the matrix before
//   start    [part's heads][k_dim][v_dim]: the matrices before the page
//   current  [part's heads][k_dim][v_dim]; means nothing where `block` is 0
//   keys     [kBlockTokens][k_dim], as they are multiplied
//   updates  [kBlockTokens][part's heads][v_dim]: u
//   decays   [kBlockTokens][part's heads]: a
// `start` is folded from the page before when the page's first row is written, `current` when the
// first row of its block is: both follow from the rows alone, so a page can be copied, and its rows
// be written again from any position on.
#pragma once

#include "core/kernel.h"

namespace edge {

constexpr int32_t kFoldRows = 16;  // of a block; divides kBlockTokens
constexpr int32_t kFoldHeads = 4;  // value heads of a part, at most

struct FoldState {
  int32_t key_heads = 0, heads = 0, k_dim = 0, v_dim = 0;
};

struct FoldArgs : Pages {
  FoldState state;
  Matrix q, k;                  // [T, key_heads * k_dim]
  Matrix v;                     // [T, heads * v_dim]
  Matrix strength;              // [T, heads]: b, or the step d
  Matrix decay;                 // [T, heads], of the delta rule, as is what follows
  float eps = 0.0f;             // of the normalization: x / sqrt(sum of x^2 + eps)
  float scale = 1.0f;           // of q, behind its normalization
  const float* rate = nullptr;  // [heads], of the state space
  const float* skip = nullptr;  // [heads]
  Matrix out;                   // [T, heads * v_dim]
  uint8_t* scratch = nullptr;   // scratch_bytes per worker, worker-major
};

// Bytes of one state in one page, a multiple of 64.
uint64_t fold_state_bytes(const FoldState& state);

struct FoldKernels {
  size_t (*scratch_bytes)(const FoldState& state);  // per worker; a multiple of 64
  void (*delta)(const FoldArgs& args, Worker worker);
  void (*state_space)(const FoldArgs& args, Worker worker);
  // out[c] = e^(-e^rate[c] * softplus(x[c] + bias[c])); out may be x.
  void (*decay)(Matrix x, const float* rate, const float* bias, Matrix out, Worker worker);
  // out[c] = softplus(x[c] + bias[c]), at least low and at most high; out may be x.
  void (*time_step)(Matrix x, const float* bias, float low, float high, Matrix out, Worker worker);
};

extern const FoldKernels fold_scalar;
extern const FoldKernels fold_avx2;
extern const FoldKernels fold_avx512;
extern const FoldKernels fold_neon;

}  // namespace edge
