// Where things lie in packed weights (made by program/pack.py) and in the scratch of quantized
// rows.
// Helpers are `static` for the reason given in core/kernel.h.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>

#include "linear/linear.h"
#include "simd/half.h"

namespace edge {

constexpr int32_t kBlock = 32;            // k of a block; K is padded to it
constexpr int32_t kInt4BlockBytes = 256;  // 32 k of a panel, two values a byte
constexpr int32_t kInt4ScaleBytes = 32;   // 16 fp16 scales after each group
constexpr int32_t kInt8WordBytes = 64;    // 4 k of a panel
constexpr int32_t kVectorBytes = 64;      // 16 floats: scales or row constants of a panel

// Group size along K of an int4 format, else 0.
static inline int32_t group_of(WeightFormat format) {
  switch (format) {
    case WeightFormat::i4g32:
      return 32;
    case WeightFormat::i4g64:
      return 64;
    case WeightFormat::i4g128:
      return 128;
    default:
      return 0;
  }
}

static inline bool is_quantized(WeightFormat format) {
  return format == WeightFormat::i8 || group_of(format) != 0;
}

static inline int64_t panel_bytes(WeightFormat format, int64_t k) {
  const int64_t depth = round_up(k, kBlock);
  if (const int32_t group = group_of(format)) {
    return depth / kBlock * kInt4BlockBytes + depth / group * kInt4ScaleBytes + kVectorBytes;
  }
  if (format == WeightFormat::i8) return depth / 4 * kInt8WordBytes + 2 * kVectorBytes;
  return depth * kLanes * (format == WeightFormat::f32 ? 4 : 2);
}

static inline int32_t panel_count(const PackedWeight& weight) {
  return (weight.n + kLanes - 1) / kLanes;
}

static inline const uint8_t* panel_data(const PackedWeight& weight, int64_t panel) {
  return weight.data + panel * panel_bytes(weight.format, weight.k);
}

// The 16 row constants that end a panel of an integer format.
static inline const float* row_constants(const PackedWeight& weight, int64_t panel) {
  return reinterpret_cast<const float*>(panel_data(weight, panel + 1) - kVectorBytes);
}

// How one row of activations becomes int8 (docs/quantization.md).
struct RowScale {
  float scale;
  float inverse;
  int32_t zero;
  bool finite;
};

// `low` <= 0 <= `high` are the row's extremes. A row that is not finite, or whose range is not,
// gets scale NaN and zeros for q, so that its outputs are NaN and no conversion is undefined.
static inline RowScale row_scale(float low, float high, bool finite) {
  const float range = high - low;
  if (!finite || !(range <= std::numeric_limits<float>::max())) {
    return {std::numeric_limits<float>::quiet_NaN(), 0.0f, 0, false};
  }
  float scale = range / 255.0f;
  if (scale < std::numeric_limits<float>::min()) scale = std::numeric_limits<float>::min();
  int32_t zero = -128 - static_cast<int32_t>(std::lrint(low / scale));
  zero = zero < -128 ? -128 : zero > 127 ? 127 : zero;
  return {scale, 1.0f / scale, zero, true};
}

// Quantized rows in scratch. Rows lie in tiles; the last tile may be smaller. A tile of m rows is
// [depth / 4][m][4] int8, zero from k to depth: four consecutive k of a row are one 32-bit word,
// which a kernel broadcasts, and the words that a kernel broadcasts together lie together.
struct QuantizedRows {
  float* scale;       // [rows]
  float* minus_zero;  // [rows]
  int32_t* starts;    // room for [rows][depth / 32] words that an instruction set may want
  int8_t* q;
  int64_t depth;
};

// Bytes of the parts of the scratch, in order: scale, minus_zero, starts, q.
struct ScratchSizes {
  int64_t depth, vector, starts, q;
};

static inline ScratchSizes scratch_sizes(const PackedWeight& weight, int32_t rows) {
  const int64_t depth = round_up(weight.k, kBlock);
  return {depth, round_up(rows * int64_t{4}, 64), round_up(rows * (depth / kBlock) * 4, 64),
          round_up(rows * depth, 64)};
}

static inline QuantizedRows quantized_rows(const PackedWeight& weight, int32_t rows,
                                           uint8_t* scratch) {
  const ScratchSizes sizes = scratch_sizes(weight, rows);
  uint8_t* const starts = scratch + 2 * sizes.vector;
  return {reinterpret_cast<float*>(scratch), reinterpret_cast<float*>(scratch + sizes.vector),
          reinterpret_cast<int32_t*>(starts), reinterpret_cast<int8_t*>(starts + sizes.starts),
          sizes.depth};
}

static inline size_t quantized_rows_bytes(const PackedWeight& weight, int32_t rows) {
  if (!is_quantized(weight.format)) return 0;
  const ScratchSizes sizes = scratch_sizes(weight, rows);
  return static_cast<size_t>(2 * sizes.vector + sizes.starts + sizes.q);
}

static inline bool finishes_none(const LinearArgs& args) { return args.epilogue == Epilogue::none; }

// Gathering reads a few kilobytes a row, so one implementation serves every instruction set.
void gather_rows(const PackedWeight& table, const int32_t* ids, Matrix y, Worker worker);

}  // namespace edge
