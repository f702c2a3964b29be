// Causal depthwise convolution over the rows of a state.
//
// A block holds kBlockTokens rows [width padded to 16] of float32 for each state of a group.
// `write` stores the step's rows; then `convolve`, which reads every row back from there, computes
//   y[t][c] = bias[c] + sum over i of weight[i][c] * row(position(t) - taps + 1 + i)[c]
// as one chain of fused multiply-adds, i ascending, that begins with the bias. Rows before position
// 0 are left out.
#pragma once

#include "core/kernel.h"
#include "edge_ops.h"

namespace edge {

struct ConvArgs : Pages {
  int32_t taps = 0;
  Matrix x, out;                   // [T, width]; out may be x
  const float* weights = nullptr;  // [taps][width padded to 16], then the bias, 0 without one
};

// Bytes of one state in one block, a multiple of 64.
uint64_t rows_state_bytes(int32_t width);

struct ConvKernels {
  void (*write)(const ConvArgs& args, Share rows, Share columns);
  void (*convolve)(const ConvArgs& args, Share rows, Share columns);
};

extern const ConvKernels conv_scalar;
extern const ConvKernels conv_avx2;
extern const ConvKernels conv_avx512;
extern const ConvKernels conv_neon;

}  // namespace edge
