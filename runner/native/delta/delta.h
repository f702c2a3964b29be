// The gated delta rule (arXiv 2412.06464) over a paged fold, and the decays that it takes.
//
// A value head has a matrix S [k_dim][v_dim], which token t decays by a_t in [0, 1] and corrects by
// strength b_t: with q and k normalized,
//   S' = a_t S,  u_t = b_t (v_t - S' k_t),  S = S' + k_t u_t^T,  o_t = S q_t
// Value head h reads the queries and keys of key head h / (heads / key_heads).
//
// It is evaluated row by row inside absolute blocks of kFoldRows positions, of which S0 is the
// matrix before. w(j, t) = a_t * ... * a_(j+1), multiplied from t downwards, is what is left of row
// j at row t; w(t), of S0. Each step is rounded to float32, `fma` once:
//   S0x[c]  = sum over i of x[i] * S0[i][c]                    fused, i ascending, for x = k, q
//   xy      = sum over i of x[i] * y[i]                        16 lanes, one tree
//   p[c]    = w(t) * S0k[c], then += (w(j, t) * kk_j) * u_j[c] fused, j ascending below t
//   u_t[c]  = b_t * (v_t[c] - p[c])
//   o_t[c]  = w(t) * S0q[c], then += (w(j, t) * qk_j) * u_j[c] fused, j ascending up to t
// and the matrix behind a whole block, whose last row is t,
//   S[i][c] = w(t) * S0[i][c], then += (w(j, t) * k_j[i]) * u_j[c]     fused, j ascending
// So what a token gives depends on the tokens before it alone: not on how many rows are computed at
// once, nor on what was computed before and is no longer there.
//
// A page holds kBlockTokens positions of one sequence for all states of a group. A state's part is,
// key_heads times, each vector padded to 16 floats,
//   block    int32, then padding: the block inside the page that `current` is the matrix before
//   start    [heads / key_heads][k_dim][v_dim]: the matrices before the page
//   current  [heads / key_heads][k_dim][v_dim]; means nothing where `block` is 0
//   keys     [kBlockTokens][k_dim], normalized
//   updates  [kBlockTokens][heads / key_heads][v_dim]: u
//   decays   [kBlockTokens][heads / key_heads]: a
// `start` is folded from the page before when the page's first row is written, `current` when the
// first row of its block is: both follow from the rows alone, so a page can be copied, and its rows
// be written again from any position on.
#pragma once

#include "core/kernel.h"

namespace edge {

constexpr int32_t kFoldRows = 16;  // of a block; divides kBlockTokens

struct FoldState {
  int32_t key_heads = 0, heads = 0, k_dim = 0, v_dim = 0;
};

struct DeltaArgs : Pages {
  FoldState state;
  float eps = 0.0f;            // of the normalization: x / sqrt(sum of x^2 + eps)
  float scale = 1.0f;          // of q, behind its normalization
  Matrix q, k;                 // [T, key_heads * k_dim]
  Matrix v;                    // [T, heads * v_dim]
  Matrix decay, strength;      // [T, heads]
  Matrix out;                  // [T, heads * v_dim]
  uint8_t* scratch = nullptr;  // scratch_bytes per worker, worker-major
};

// Bytes of one state in one page, a multiple of 64.
uint64_t fold_state_bytes(const FoldState& state);

struct DeltaKernels {
  size_t (*scratch_bytes)(const DeltaArgs& args);  // per worker; a multiple of 64
  void (*delta)(const DeltaArgs& args, Worker worker);
  // out[c] = e^(-e^rate[c] * softplus(x[c] + bias[c])); out may be x.
  void (*decay)(Matrix x, const float* rate, const float* bias, Matrix out, Worker worker);
};

extern const DeltaKernels delta_scalar;
extern const DeltaKernels delta_avx2;
extern const DeltaKernels delta_avx512;
extern const DeltaKernels delta_neon;

}  // namespace edge
