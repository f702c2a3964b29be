// RMS norm: y = x * (1 / sqrt(mean(x^2) + eps)) * weight over each run of `size` columns; without a
// weight (null) that factor is left out (arXiv 1910.07467); y may be x. Runs share a weight, or,
// `grouped`, each has its part of one. The sum of squares runs in 16 virtual lanes and one fixed
// tree.
//
// Layer norm: y = (x - mean(x)) * (1 / sqrt(mean((x - mean(x))^2) + eps)) * weight + bias over each
// row (arXiv 1607.06450); y may be x. Both sums run in 16 virtual lanes and one fixed tree.
#pragma once

#include "core/kernel.h"

namespace edge {

struct NormKernels {
  void (*rms_norm)(Matrix x, const float* weight, int32_t size, bool grouped, float eps, Matrix y,
                   Worker worker);
  // Without a bias it is null. Workers split the rows.
  void (*layer_norm)(Matrix x, const float* weight, const float* bias, float eps, Matrix y,
                     Worker worker);
};

extern const NormKernels norm_scalar;
extern const NormKernels norm_avx2;
extern const NormKernels norm_avx512;
extern const NormKernels norm_neon;

}  // namespace edge
