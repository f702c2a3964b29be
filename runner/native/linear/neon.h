// What the NEON linear kernels share. Only neon.cpp, which needs no more than baseline aarch64,
// defines anything here, so that no file built for a larger instruction set is ever called through
// it.
#pragma once

#include "linear/packed.h"

namespace edge {

constexpr int32_t kNeonTile = 4;  // rows that one pass over a panel's weights serves

// Quantizes rows into tiles of kNeonTile.
void prepare_neon(const LinearArgs& args, Share rows);

// Float formats.
void multiply_float_neon(const LinearArgs& args, Share panels);

// y = scale * (total - zero * constant) + bias for the 16 outputs of a panel, for the row `row`.
void finish_row_neon(const LinearArgs& args, const QuantizedRows& rows, int64_t panel, int64_t row,
                     const float* totals);

}  // namespace edge
