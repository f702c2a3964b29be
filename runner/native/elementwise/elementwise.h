// Elementwise operators. y may be x (in place). Workers split the rows, or the columns of one row.
#pragma once

#include "core/kernel.h"

namespace edge {

struct ElementwiseKernels {
  void (*silu)(Matrix x, Matrix y, Worker worker);  // x / (1 + exp(-x))
  void (*gelu)(Matrix x, Matrix y, Worker worker);  // tanh approximation, arXiv 1606.08415
  void (*mul)(Matrix a, Matrix b, Matrix y, Worker worker);
  void (*silu_mul)(Matrix a, Matrix b, Matrix y, Worker worker);  // silu(a) * b
  void (*gelu_mul)(Matrix a, Matrix b, Matrix y, Worker worker);
  void (*add)(Matrix a, Matrix b, Matrix y, Worker worker);
  void (*scale)(Matrix x, float factor, Matrix y, Worker worker);
  void (*softcap)(Matrix x, float cap, Matrix y, Worker worker);  // cap * tanh(x / cap)
  // y[i] = x[rows[i]]
  void (*select_rows)(Matrix x, const int32_t* rows, Matrix y, Worker worker);
};

extern const ElementwiseKernels elementwise_scalar;
extern const ElementwiseKernels elementwise_avx2;
extern const ElementwiseKernels elementwise_avx512;
extern const ElementwiseKernels elementwise_neon;

}  // namespace edge
