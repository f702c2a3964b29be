// The two inner products of attention for one span of rows and one block of kBlockTokens tokens, in
// register tiles. Each output is one chain of fused multiply-adds in ascending order, so its bits
// do not depend on the tile that made it. Included by attention.inl.
#include "core/kernel.h"

namespace edge {
namespace {

constexpr int32_t kTileRows = 6;  // 6 rows x 16 lanes fill the 16 vector registers of AVX2

// Asks for memory that is read soon: the cache of a long sequence comes from RAM, in parts too
// short for the processor's own prefetcher.
template <int kBytes>
inline void fetch(const void* next) {
  constexpr int kLine = 64;
#pragma GCC unroll 8
  for (int i = 0; i < kBytes; i += kLine) {
    __builtin_prefetch(static_cast<const uint8_t*>(next) + i);
  }
}

// scores[r][16 c + lane] = sum over i of q[r][i] * keys[i][16 c + lane], for kRows x 16 kGroups
// outputs.
template <class V, class Element, int kRows, int kGroups, bool kFetch>
inline void score_tile(const float* q, int64_t q_stride, const Element* keys, int32_t head_dim,
                       const Element* ahead, float* scores) {
  V sums[kRows][kGroups];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kGroups; ++c) sums[r][c] = V::broadcast(0.0f);
  }
  for (int32_t i = 0; i < head_dim; ++i) {
    if (kFetch) fetch<kGroups * kLanes * sizeof(Element)>(ahead + i * kGroups * kLanes);
    V key[kGroups];
#pragma GCC unroll 8
    for (int c = 0; c < kGroups; ++c)
      key[c] = V::load(keys + int64_t(i) * kBlockTokens + c * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      V query = V::broadcast(q[r * q_stride + i]);
#pragma GCC unroll 8
      for (int c = 0; c < kGroups; ++c) sums[r][c] = fma(query, key[c], sums[r][c]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kGroups; ++c) sums[r][c].store(scores + r * kBlockTokens + c * kLanes);
  }
}

// out[r][16 c + lane] += sum over tokens of weights[r][token] * values[token][16 c + lane].
template <class V, class Element, int kRows, int kGroups, bool kFetch>
inline void value_tile(const float* weights, const Element* values, int32_t begin, int32_t end,
                       int64_t stride, const Element* ahead, float* out) {
  V sums[kRows][kGroups];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kGroups; ++c) sums[r][c] = V::load(out + r * stride + c * kLanes);
  }
  for (int32_t token = begin; token < end; ++token) {
    if (kFetch) fetch<kGroups * kLanes * sizeof(Element)>(ahead + token * kGroups * kLanes);
    V value[kGroups];
#pragma GCC unroll 8
    for (int c = 0; c < kGroups; ++c) value[c] = V::load(values + token * stride + c * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      V weight = V::broadcast(weights[r * kBlockTokens + token]);
#pragma GCC unroll 8
      for (int c = 0; c < kGroups; ++c) sums[r][c] = fma(weight, value[c], sums[r][c]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kGroups; ++c) sums[r][c].store(out + r * stride + c * kLanes);
  }
}

// Few rows take wide tiles instead, to keep enough independent chains in flight.
template <class V>
constexpr int wide_groups(int rows, int most) {
  return most == 1 || V::kTileSums >= most * rows ? most : wide_groups<V>(rows, most / 2);
}

// Scores of the tokens [begin, end), rounded out to whole groups; with kFetch, asks for the values
// at `ahead` meanwhile.
template <class V, class Element, int kRows, bool kFetch>
void score_rows(const float* q, int64_t q_stride, const Element* keys, int32_t head_dim,
                int32_t begin, int32_t end, const Element* ahead, float* scores) {
  constexpr int kGroups = wide_groups<V>(kRows, kBlockTokens / kLanes);
  constexpr int32_t kStep = kGroups * kLanes;
  for (int32_t token = begin / kStep * kStep; token < end; token += kStep) {
    score_tile<V, Element, kRows, kGroups, kFetch>(
        q, q_stride, keys + token, head_dim, ahead + int64_t(token) * head_dim, scores + token);
  }
}

// Adds columns of the values of the tokens [begin, end), kGroups vectors at a time while as many
// are left, then half as many.
template <class V, class Element, int kRows, int kGroups, bool kFetch>
void value_columns(const float* weights, const Element* values, int32_t begin, int32_t end,
                   int64_t stride, int64_t column, const Element* ahead, float* out) {
  for (; column + kGroups * kLanes <= stride; column += kGroups * kLanes) {
    value_tile<V, Element, kRows, kGroups, kFetch>(weights, values + column, begin, end, stride,
                                                   ahead + column * kBlockTokens, out + column);
  }
  if constexpr (kGroups > 1) {
    value_columns<V, Element, kRows, kGroups / 2, kFetch>(weights, values, begin, end, stride,
                                                          column, ahead, out);
  }
}

// Adds the values of the tokens [begin, end); with kFetch, asks for the keys at `ahead` meanwhile.
template <class V, class Element, int kRows, bool kFetch>
void value_rows(const float* weights, const Element* values, int32_t begin, int32_t end,
                int64_t stride, const Element* ahead, float* out) {
  // Rows of 128 at once, so that they are read in the order in which they lie; with three rows of
  // weights that would be more sums and values than registers.
  constexpr int kGroups = wide_groups<V>(kRows, kRows <= 2 ? 8 : 4);
  value_columns<V, Element, kRows, kGroups, kFetch>(weights, values, begin, end, stride, 0, ahead,
                                                    out);
}

// Calls body(first row, integral_constant-like row count) on equal parts of at most kTileRows rows.
template <int kRows>
struct RowCount {
  static constexpr int value = kRows;
};

template <class Body>
inline void each_row_tile(int32_t rows, Body body) {
  static_assert(kTileRows == 6, "one case per tile height");
  for (int32_t row = 0; row < rows;) {
    int32_t left = rows - row, parts = (left + kTileRows - 1) / kTileRows;
    int32_t height = (left + parts - 1) / parts;
    switch (height) {
      case 1:
        body(row, RowCount<1>());
        break;
      case 2:
        body(row, RowCount<2>());
        break;
      case 3:
        body(row, RowCount<3>());
        break;
      case 4:
        body(row, RowCount<4>());
        break;
      case 5:
        body(row, RowCount<5>());
        break;
      default:
        body(row, RowCount<6>());
        break;
    }
    row += height;
  }
}

}  // namespace
}  // namespace edge
