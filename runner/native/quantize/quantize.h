// Floats to integers at export; no part of a step. Bit for bit the formulas of
// export/weights/quantize.py and scales.py: float32, one operation at a time, halves to even, and
// sums of a group by halves (the element i with i + group / 2, and so on).
#pragma once

#include <cstdint>

namespace edge {

// How a group of codes -s .. s - 1 gets its scale: max|w| / (s - 0.5); max|w| / s with the sign
// that puts that element on -s; or the better of both, refined by alternating least squares. Where
// columns do not count the same, the last tries both, and each made smaller, refines them all, and
// takes the best.
enum ScaleRule : int32_t { kAffine = 0, kSigned = 1, kHqq = 2 };

// Rows of finite floats [n, k]. For each row the sums, in float64, of the squares of its values
// (`signal`) and of what rounding changed them by (`noise`).
struct QuantizeKernels {
  // `codes` [n, k] of 4 or 6 `bits`, with a sign; `scales` [n, k / group] float32 with float16's
  // values, never 0; `group` is 32, 64 or 128 and divides k. `columns` [k] says how much a squared
  // error in each counts, null: the same. Returns false where float16 cannot hold a scale.
  bool (*groups)(const float* rows, int64_t n, int32_t k, int32_t bits, int32_t group, int32_t rule,
                 const float* columns, int8_t* codes, float* scales, double* signal, double* noise);
  // `codes` [n, k] in -127..127, `scales` [n].
  void (*int8)(const float* rows, int64_t n, int32_t k, int8_t* codes, float* scales,
               double* signal, double* noise);
};

extern const QuantizeKernels quantize_scalar;
extern const QuantizeKernels quantize_avx2;
extern const QuantizeKernels quantize_avx512;
extern const QuantizeKernels quantize_neon;

}  // namespace edge
