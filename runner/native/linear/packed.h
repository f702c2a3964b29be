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
constexpr int32_t kInt4ScaleBytes = 32;   // 16 fp16 scales
constexpr int32_t kInt8WordBytes = 64;    // 4 k of a panel
constexpr int32_t kVectorBytes = 64;      // 16 floats: scales or row constants of a panel

// How the groups of a 4-bit panel lie: frames of `together` groups behind one header; a group is
// its codes, blocks of kInt4BlockBytes, and a tail. Fields are vectors of 16 rows:
//   i4       tail: fp16 scales
//   f16      tail: fp16 scales, fp16 minima
//   zero     header: zero points of two groups (uint8); tail: fp16 scales. The last frame may have
//            one group.
//   q8       header: fp16 factors of scales, of minima; tail: scales, minima (uint8)
struct Frames {
  int32_t group;  // k of a group
  int32_t together, header, tail;

  constexpr int32_t codes() const { return group / kBlock * kInt4BlockBytes; }
  constexpr int32_t group_bytes() const { return codes() + tail; }
  constexpr int64_t bytes(int64_t groups) const {
    return (groups + together - 1) / together * header + groups * group_bytes();
  }
};

static constexpr Frames frames_of(int32_t group, MinimumType minimum) {
  return minimum == MinimumType::f16    ? Frames{group, 1, 0, 64}
         : minimum == MinimumType::zero ? Frames{group, 2, 32, 32}
         : minimum == MinimumType::q8   ? Frames{group, kSuper / group, 64, 32}
                                        : Frames{group, 1, 0, 32};
}

// A 4-bit format as kernels are made for it; G = 0: int8, whose whole row is one group.
template <int32_t G, MinimumType N>
struct Groups {
  static constexpr int32_t kGroup = G;
  static constexpr MinimumType kMinimum = N;
  static constexpr Frames kFrames = frames_of(G, N);
};

// Calls `visit` with the Groups of a format of integers.
template <class Visit>
static inline void visit_groups(WeightFormat format, Visit visit) {
  using N = MinimumType;
  if (format.code == Code::i8) return visit(Groups<0, N::none>());
  switch (format.minimum) {
    case N::f16:
      return visit(Groups<32, N::f16>());
    case N::q8:
      return visit(Groups<32, N::q8>());
    case N::zero:
      return format.group == 32   ? visit(Groups<32, N::zero>())
             : format.group == 64 ? visit(Groups<64, N::zero>())
                                  : visit(Groups<128, N::zero>());
    case N::none:
      return format.group == 32   ? visit(Groups<32, N::none>())
             : format.group == 64 ? visit(Groups<64, N::none>())
                                  : visit(Groups<128, N::none>());
  }
}

static inline int64_t panel_bytes(WeightFormat format, int64_t k) {
  const int64_t depth = round_up(k, kBlock);
  if (format.group) {
    return frames_of(format.group, format.minimum).bytes(depth / format.group) + kVectorBytes;
  }
  if (format.code == Code::i8) return depth / 4 * kInt8WordBytes + 2 * kVectorBytes;
  return depth * kLanes * (format.code == Code::f32 ? 4 : 2);
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
//
// Where weights have minima or zero points, and the instruction set wants them, `sums` are the sums
// of q over each group, for a tile of m rows: float [groups][m], or for q8 minima int16 of two
// groups side by side, [groups / 2][m][2]. Groups divide K, so these are sums over real k alone.
struct QuantizedRows {
  float* scale;       // [rows]
  float* minus_zero;  // [rows]
  int32_t* starts;    // room for [rows][depth / 32] words that an instruction set may want
  float* sums;        // as above; a word of int16 pairs is as large as a float
  int8_t* q;
  int64_t depth;
};

// Words of the sums of a row.
static inline int64_t sum_words(WeightFormat format, int64_t depth) {
  if (format.minimum == MinimumType::none) return 0;
  return depth / format.group / (format.minimum == MinimumType::q8 ? 2 : 1);
}

// Puts the sum over group `g` of row `i` into its tile of `height` rows, which begins at row
// `first`.
static inline void store_sum(const QuantizedRows& rows, WeightFormat format, int64_t first,
                             int64_t height, int64_t i, int64_t g, int32_t sum) {
  float* const tile = rows.sums + first * sum_words(format, rows.depth);
  const int64_t row = i - first;
  if (format.minimum == MinimumType::q8) {  // at most 32 * 128 in magnitude
    const auto half = static_cast<int16_t>(sum);
    std::memcpy(reinterpret_cast<int16_t*>(tile + g / 2 * height + row) + g % 2, &half, 2);
  } else {
    tile[g * height + row] = static_cast<float>(sum);
  }
}

// Bytes of the parts of the scratch, in order: scale, minus_zero, starts, sums, q.
struct ScratchSizes {
  int64_t depth, vector, starts, sums, q;
};

static inline ScratchSizes scratch_sizes(const PackedWeight& weight, int32_t rows) {
  const int64_t depth = round_up(weight.k, kBlock);
  return {depth, round_up(rows * int64_t{4}, 64), round_up(rows * (depth / kBlock) * 4, 64),
          round_up(rows * sum_words(weight.format, depth) * 4, 64), round_up(rows * depth, 64)};
}

static inline QuantizedRows quantized_rows(const PackedWeight& weight, int32_t rows,
                                           uint8_t* scratch) {
  const ScratchSizes sizes = scratch_sizes(weight, rows);
  uint8_t* const starts = scratch + 2 * sizes.vector;
  uint8_t* const sums = starts + sizes.starts;
  return {reinterpret_cast<float*>(scratch),
          reinterpret_cast<float*>(scratch + sizes.vector),
          reinterpret_cast<int32_t*>(starts),
          reinterpret_cast<float*>(sums),
          reinterpret_cast<int8_t*>(sums + sizes.sums),
          sizes.depth};
}

static inline size_t quantized_rows_bytes(const PackedWeight& weight, int32_t rows) {
  if (!is_quantized(weight.format)) return 0;
  const ScratchSizes sizes = scratch_sizes(weight, rows);
  return static_cast<size_t>(2 * sizes.vector + sizes.starts + sizes.sums + sizes.q);
}

static inline bool finishes_none(const LinearArgs& args) { return args.epilogue == Epilogue::none; }

// Gathering reads a few kilobytes a row, so one implementation serves every instruction set.
void gather_rows(const PackedWeight& table, const int32_t* ids, Matrix y, Worker worker);

}  // namespace edge
