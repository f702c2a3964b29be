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

constexpr int32_t kBlock = 32;          // K is padded to it
constexpr int32_t kInt8WordBytes = 64;  // 4 k of a panel
constexpr int32_t kVectorBytes = 64;    // 16 floats: scales or row constants of a panel

// What the fields of codes that are no numbers themselves stand for: LEVELS of program/formats.py.
constexpr int8_t kE2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
constexpr int8_t kNl4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                             1,    13,   25,  38,  53,  69,  89,  113};

// The bits of 2^-127: with an exponent below 1 a float has none, and is this one. The bits of
// 2^(byte - 127) are the larger of these and byte << 23.
constexpr uint32_t kSmallestExponent = 1u << 22;

static constexpr bool has_levels(Code code) { return code == Code::e2m1 || code == Code::nl4; }

// Bits of a code of a grouped format.
static constexpr int32_t code_bits(Code code) {
  return code == Code::i8 ? 8 : code == Code::i6 ? 6 : code == Code::i5 || code == Code::u5 ? 5 : 4;
}

// Where the bits of a code above the fourth lie: behind the nibbles of a group, in vectors of a
// word a row, each of plane_columns; and where those of step `s` (four columns) are in a byte.
static constexpr int32_t plane_columns(Code code) { return 32 / (code_bits(code) - 4); }
static constexpr int32_t plane_offset(WeightFormat format, int32_t step) {
  return format.group * 8 + step * 4 / plane_columns(format.code) * kVectorBytes;
}
static constexpr int32_t plane_shift(Code code, int32_t step) {
  return step % (plane_columns(code) / 4) * (code_bits(code) - 4);
}

// What makes a code unsigned when it is added: what is stored, or comes out of a table of levels,
// is the sum.
static constexpr int32_t code_offset(Code code) {
  switch (code) {
    case Code::i8:
    case Code::nl4:
      return 128;
    case Code::i6:
      return 32;
    case Code::i5:
      return 16;
    case Code::e2m1:
      return 12;
    case Code::i4:
      return 8;
    default:
      return 0;
  }
}

// The levels plus the code's offset.
struct alignas(16) LevelTable {
  uint8_t bytes[16];
};
static constexpr LevelTable unsigned_levels(Code code) {
  LevelTable table{};
  for (int i = 0; i < 16; ++i) {
    const int level = code == Code::e2m1 ? kE2m1[i] : kNl4[i];
    table.bytes[i] = static_cast<uint8_t>(level + code_offset(code));
  }
  return table;
}

// What turns an integer below 2^22 into a float without a conversion, and its bits: their sum with
// the integer is the sum of both.
constexpr float kFloatBase = 0x1.8p23f;
constexpr int32_t kFloatBaseBits = 0x4B400000;

// How the groups of a panel lie: frames of `together` groups behind one header; a group is its
// codes and a tail. Fields are vectors of 16 rows, by scale and minimum:
//   f16, none   tail: fp16 scales
//   f16, f16    tail: fp16 scales, fp16 minima
//   f16, zero   header: zero points of two groups (uint8); tail: fp16 scales
//   e8m0, none  header: scales of two groups (uint8)
//   q8, q8      header: fp16 factors of scales, of minima; tail: scales, minima (uint8)
//   s8, none    header: fp16 factors of scales; scales of all groups (int8)
// Of frames of two groups the last may have one.
struct Frames {
  int32_t group;  // k of a group
  int32_t codes;  // bytes of its codes
  int32_t together, header, tail;

  constexpr int32_t group_bytes() const { return codes + tail; }
  constexpr int64_t bytes(int64_t groups) const {
    return (groups + together - 1) / together * header + groups * group_bytes();
  }
};

static constexpr Frames frames_of(WeightFormat format) {
  const int32_t group = format.group, codes = group * kLanes * code_bits(format.code) / 8;
  const int32_t frame = group ? kSuper / group : 1;
  if (format.scale == ScaleType::q8) return {group, codes, frame, 64, 32};
  if (format.scale == ScaleType::s8) return {group, codes, frame, 32 + frame * kLanes, 0};
  if (format.scale == ScaleType::e8m0) return {group, codes, 2, 32, 0};
  if (format.minimum == MinimumType::zero) return {group, codes, 2, 32, 32};
  return {group, codes, 1, 0, format.minimum == MinimumType::f16 ? 64 : 32};
}

// A format of integers as kernels are made for it: number I of kFormats, for rows of x that are
// rounded as A says. kGroup = 0: int8, whose whole row is one group.
template <size_t I, Activations A>
struct Groups {
  static constexpr WeightFormat kFormat = {kFormats[I].code,   kFormats[I].group,
                                           kFormats[I].scale,  kFormats[I].minimum,
                                           kFormats[I].layout, A};
  static constexpr bool kByGroup = A == Activations::group;
  static constexpr int32_t kSummed = summed_columns(kFormat);
  static constexpr Code kCode = kFormat.code;
  static constexpr int32_t kGroup = kFormat.group;
  static constexpr ScaleType kScale = kFormat.scale;
  static constexpr MinimumType kMinimum = kFormat.minimum;
  static constexpr Frames kFrames = frames_of(kFormat);
  static constexpr bool kFactors = has_factors(kFormat);
  // Whether groups of a frame are added up as integers, scales and all.
  static constexpr bool kScaled = kFactors && !kByGroup;
};

constexpr size_t kFormatCount = sizeof(kFormats) / sizeof(kFormats[0]);

// Calls `visit` with the Groups of a format of integers.
template <size_t I = 0, class Visit>
static inline void visit_groups(WeightFormat format, Visit visit) {
  if constexpr (I < kFormatCount) {
    if constexpr (is_quantized(kFormats[I])) {
      if (storage_of(format) == kFormats[I]) {
        if (by_group(format)) return visit(Groups<I, Activations::group>());
        return visit(Groups<I, Activations::token>());
      }
    }
    visit_groups<I + 1>(format, visit);
  }
}

static inline int64_t panel_bytes(WeightFormat format, int64_t k) {
  const int64_t depth = round_up(k, kBlock);
  if (format.group) {
    return frames_of(format).bytes(depth / format.group) + kVectorBytes;
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

// How one row of activations, or kRun columns of it, become int8 (docs/quantization.md).
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

// `largest` is the magnitude of kRun columns of a row. What is not finite has the same effect
// there.
static inline RowScale run_scale(float largest, bool finite) {
  if (!finite) return {std::numeric_limits<float>::quiet_NaN(), 0.0f, 0, false};
  float scale = largest / 127.0f;
  if (scale < std::numeric_limits<float>::min()) scale = std::numeric_limits<float>::min();
  return {scale, 1.0f / scale, 0, true};
}

constexpr int64_t kLineBytes = 64, kLineWords = 16;  // of the cache

// Elements that a row takes in the arrays of QuantizedRows, whole cache lines: a tile whose first
// row is number `i` begins at i times that.
struct RowStrides {
  int64_t starts, sums, runs, q;
};

// Quantized rows in scratch. Rows lie in tiles; the last tile may be smaller. In a tile the rows
// take turns: a piece of each, then the next piece of each. A piece is what its instruction set
// likes: one word, where a kernel loads the words of several rows at once; or a cache line, where
// it broadcasts each by itself, so that workers that prepare rows of one tile do not write its
// lines together.
//
// `q` are int8, zero from k to depth; four consecutive k of a row are a word.
//
// Where weights have minima or zero points, and the instruction set wants them, `sums` are the sums
// of q over each group: float, or for q8 minima int16 of two groups side by side, a word. Groups
// divide K, so these are sums over real k alone.
//
// Of rows by group `runs` are the scales of each kRun columns, `sums` those over summed_columns,
// all float, and `scale` and `minus_zero` are 1 and 0.
struct QuantizedRows {
  float* scale;       // [rows]
  float* minus_zero;  // [rows]
  int32_t* starts;    // room for start_words of a row that an instruction set may want
  float* sums;
  float* runs;
  int8_t* q;
  int64_t depth;
  RowStrides strides;
};

// Where element `i` of the first row of a tile lies, of pieces of `Piece` elements. Those of the
// next rows follow, a piece from each other.
template <int64_t Piece>
static inline int64_t tile_offset(int64_t i, int64_t height) {
  return i / Piece * Piece * height + i % Piece;
}

// Start words of a row: at most one a group, and one for each 32 k, of six bits 16.
static inline int64_t start_words(WeightFormat format, int64_t depth) {
  if (format.code == Code::i6) return depth / 16;
  return depth / (format.group == 0 || format.group > kBlock ? kBlock : format.group);
}

static constexpr bool has_paired_sums(WeightFormat format) {
  return format.minimum == MinimumType::q8 && !by_group(format);
}

// Words of the sums of a row.
static inline int64_t sum_words(WeightFormat format, int64_t depth) {
  if (format.minimum == MinimumType::none) return 0;
  return depth / summed_columns(format) / (has_paired_sums(format) ? 2 : 1);
}

// Scales of a row by group.
static inline int64_t run_words(WeightFormat format, int64_t depth) {
  return by_group(format) ? depth / kRun : 0;
}

// A row in its tile of `height` rows, which begins at row `first`.
struct TileRow {
  int64_t first, height, row;
};

// Puts the sum over the summed columns number `g` of a row into its tile, of pieces of `Piece`
// words.
template <int64_t Piece>
static inline void store_sum(const QuantizedRows& rows, WeightFormat format, TileRow at, int64_t g,
                             int32_t sum) {
  float* const tile = rows.sums + at.first * rows.strides.sums + (at.row - at.first) * Piece;
  if (has_paired_sums(format)) {  // at most 32 * 128 in magnitude
    const auto half = static_cast<int16_t>(sum);
    float* const word = tile + tile_offset<Piece>(g / 2, at.height);
    std::memcpy(reinterpret_cast<int16_t*>(word) + g % 2, &half, 2);
  } else {
    tile[tile_offset<Piece>(g, at.height)] = static_cast<float>(sum);
  }
}

// Puts the scale of columns [k, k + kRun) of a row into its tile.
template <int64_t Piece>
static inline void store_run(const QuantizedRows& rows, TileRow at, int64_t k, float scale) {
  rows.runs[at.first * rows.strides.runs + (at.row - at.first) * Piece +
            tile_offset<Piece>(k / kRun, at.height)] = scale;
}

static inline RowStrides row_strides(const PackedWeight& weight) {
  const int64_t depth = round_up(weight.k, kBlock);
  return {round_up(start_words(weight.format, depth), kLineWords),
          round_up(sum_words(weight.format, depth), kLineWords),
          round_up(run_words(weight.format, depth), kLineWords), round_up(depth, kLineBytes)};
}

static inline QuantizedRows quantized_rows(const PackedWeight& weight, int32_t rows,
                                           uint8_t* scratch) {
  const RowStrides strides = row_strides(weight);
  const int64_t vector = round_up(rows, kLineWords);
  float* const scale = reinterpret_cast<float*>(scratch);
  float* const minus_zero = scale + vector;
  float* const sums = minus_zero + vector;
  float* const runs = sums + rows * strides.sums;
  auto* const starts = reinterpret_cast<int32_t*>(runs + rows * strides.runs);
  auto* const q = reinterpret_cast<int8_t*>(starts + rows * strides.starts);
  return {scale, minus_zero, starts, sums, runs, q, round_up(weight.k, kBlock), strides};
}

static inline size_t quantized_rows_bytes(const PackedWeight& weight, int32_t rows) {
  if (!is_quantized(weight.format)) return 0;
  const RowStrides strides = row_strides(weight);
  const int64_t words = strides.starts + strides.sums + strides.runs;
  return static_cast<size_t>(2 * 4 * round_up(rows, kLineWords) + rows * (4 * words + strides.q));
}

static inline bool finishes_none(const LinearArgs& args) { return args.epilogue == Epilogue::none; }

// Gathering reads a few kilobytes a row, so one implementation serves every instruction set.
void gather_rows(const PackedWeight& table, const int32_t* ids, Matrix y, Worker worker);

}  // namespace edge
