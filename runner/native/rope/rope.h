// Rotary embedding, half-split: with d = table_cols, columns i and i + d of each head (i < d)
// become (a cos - b sin, b cos + a sin); columns from 2d on are copied (partial rotary). arXiv
// 2104.09864.
#pragma once

#include "core/kernel.h"

namespace edge {

struct RopeKernels {
  void (*rope)(Matrix x, const int32_t* positions, const float* cos, const float* sin,
               int32_t table_cols, int32_t heads, int32_t head_dim, Matrix y, Worker worker);
};

extern const RopeKernels rope_scalar;
extern const RopeKernels rope_avx2;
extern const RopeKernels rope_avx512;
extern const RopeKernels rope_neon;

}  // namespace edge
