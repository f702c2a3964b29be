// Elementwise operators. The output may be an input (in place). Workers split the rows, or the
// columns of one row.
#pragma once

#include "core/generated/ops.h"
#include "core/kernel.h"

namespace edge {

struct ElementwiseArgs {
  Matrix x, y;          // y: of operators with two inputs
  float number = 0.0f;  // factor, cap or alpha
  Matrix out;
  float limit = 0.0f;
};

using ElementwiseKernel = void (*)(const ElementwiseArgs& args, Worker worker);

struct ElementwiseKernels {
  // One for each elementwise operator of the table, which says what it computes.
#define EDGE_MEMBER(name) ElementwiseKernel name;
  EDGE_ELEMENTWISE(EDGE_MEMBER)
#undef EDGE_MEMBER
  ElementwiseKernel silu_mul;  // silu(x) * y
  ElementwiseKernel gelu_mul;
  // With x at most limit and y from -limit to limit: x / (1 + e^(-alpha x)) * (y + 1).
  ElementwiseKernel clamped_mul;
  // y[i] = x[rows[i]]
  void (*select_rows)(Matrix x, const int32_t* rows, Matrix y, Worker worker);
  ElementwiseKernel scale_rows;  // x * y, of one column; out is as wide as x
  // y[rows[i]] = fma(factors[i], x[i], y[rows[i]]), for ascending i
  void (*add_scaled)(Matrix x, const float* factors, const int32_t* rows, Matrix y);
};

extern const ElementwiseKernels elementwise_scalar;
extern const ElementwiseKernels elementwise_avx2;
extern const ElementwiseKernels elementwise_avx512;
extern const ElementwiseKernels elementwise_neon;

}  // namespace edge
