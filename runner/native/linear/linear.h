// Linear and embedding over packed weights.
//
// Panel layouts are specified in docs/program-format.md and made by program/pack.py.
// Integer weights: each row of x is quantized to int8 (asymmetric, per row; shared numerics in
// docs/quantization.md), dots are exact integers, and
//   y[n] = s_x * fma(-zp, rowconst[n], sum_g s_w[n,g] * dot_g)   groups ascending, one fma each;
// formats with minima or zero points add those in the order that docs/quantization.md gives.
// Float weights: y[n] = fma over k ascending, float32 accumulator. Then + bias. So a result does
// not depend on the number of rows, the tile, the worker count or the instruction set.
#pragma once

#include "core/kernel.h"
#include "linear/format.h"

namespace edge {

struct PackedWeight {
  WeightFormat format;
  int32_t n = 0, k = 0;           // logical
  const uint8_t* data = nullptr;  // 64-byte aligned
};

// What becomes of a product x w before it is stored.
enum class Epilogue : int32_t {
  none,
  add,       // residual + x w
  silu_mul,  // silu(x w) * (x up)
  gelu_mul,
  clamped_mul,  // elementwise.h; of x w and x up
};

struct LinearArgs {
  PackedWeight weight;
  const float* bias = nullptr;  // [n] or null
  Matrix x;                     // [rows, k]
  Matrix y;                     // [rows, n]
  uint8_t* scratch = nullptr;   // scratch_bytes(...), 64-byte aligned
  Epilogue epilogue = Epilogue::none;
  Matrix residual;                   // [rows, n]; may be y
  const uint8_t* up = nullptr;       // packed as `weight`, with the same scratch
  const float* up_bias = nullptr;    // [n] or null
  float alpha = 0.0f, limit = 0.0f;  // of clamped_mul
};

// Packed bytes of a weight, to check a file against.
uint64_t packed_bytes(WeightFormat format, int64_t n, int64_t k);

struct LinearKernels {
  // Bytes of scratch for `rows` rows of width k; 0: the format needs none, and no `prepare`.
  size_t (*scratch_bytes)(const PackedWeight& weight, int32_t rows);
  // Fills the scratch of these rows (quantizes them); a row's bytes depend on that row alone.
  // multiply() needs all rows prepared.
  void (*prepare)(const LinearArgs& args, Share rows);
  // Workers split the output panels.
  void (*multiply)(const LinearArgs& args, Worker worker);
  // Whether multiply() does the epilogue; else it leaves the product in y.
  bool (*finishes)(const LinearArgs& args);
  // y[i] = table row ids[i], dequantized. Workers split the rows of y.
  void (*gather)(const PackedWeight& table, const int32_t* ids, Matrix y, Worker worker);
};

extern const LinearKernels linear_scalar;
extern const LinearKernels linear_avx2;          // needs AVX2, FMA, F16C
extern const LinearKernels linear_avxvnni;       // needs AVX-VNNI and those
extern const LinearKernels linear_avx512vnni;    // needs AVX-512 F, BW, DQ, VL, VNNI and AVX2's
extern const LinearKernels linear_neon;          // baseline aarch64
extern const LinearKernels linear_neon_dotprod;  // needs the dot product extension
extern const LinearKernels linear_neon_i8mm;     // needs that and the int8 matrix extension

}  // namespace edge
