// Integer weights with vpdpbusd: four unsigned bytes of weight times four consecutive k of x, added
// to an int32. It wraps, so a sum is exact if it fits itself, whatever it passes on the way. One
// 32-bit lane is one output row. Weights become unsigned by code_offset, and each sum starts from
// that offset times -sum(x).
//
// `S` is the instruction set:
//   Lanes         16 floats
//   Words         16 int32: load(data), broadcast(int32), repeat(word in memory), widen(16 uint8)
//                 or (16 int8), store(data), +, |, lanes() as floats, exponents(): the floats whose
//                 exponents they are; 64 bytes: low_nibbles(), high_nibbles(), plus_128(),
//                 levels(table of 16); field<Left, Mask>(): bits of each byte, moved up by Left (or
//                 down, if it is negative); upper(): the lower half of each word moved up;
//                 add_scaled(a, b), which adds the products of int32, add_pairs(a, b), of int16,
//                 two a word, and add(weights, x), of unsigned weights with the four k at x;
//                 floats(): the floats whose bits they are
//   kFewRows      that many rows, or fewer, are one tile, one panel wide: panels are read from
//                 memory as one stream
//   kTileRows, kTilePanels   a tile when there are more rows
//   kSums         sums that small tiles may keep
//   kTotals       totals of a tile that stay in registers beside the sums
#include "linear/packed.h"
#include "simd/math.h"

namespace edge {
namespace {

// Sums start over with what is summed before a scale multiplies.
struct WordStarts {
  int64_t span;  // 0: they start from `base`
  int32_t offset, base;

  static __m256i add(__m256i sums, __m256i bytes) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  int32_t word(__m256i eight) const {
    __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0x4E));
    sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0xB1));
    return static_cast<int32_t>(static_cast<uint32_t>(base) +
                                static_cast<uint32_t>(-offset) *
                                    static_cast<uint32_t>(_mm_cvtsi128_si32(sums)));
  }
};

// Of rows by group sums become floats by where they start from; scales of e8m0 are too large for
// what that wants.
constexpr bool has_float_base(WeightFormat format) {
  return by_group(format) && format.group > 0 && format.scale != ScaleType::e8m0;
}
constexpr int32_t base_of(WeightFormat format) {
  return has_float_base(format) ? kFloatBaseBits : 0;
}

inline WordStarts starts_of(WeightFormat format, int64_t depth) {
  const int32_t offset = code_offset(format.code);
  const int64_t columns = summed_columns(format);
  return {offset == 0 ? 0 : columns == 0 ? depth : columns, offset, base_of(format)};
}

// Where a tile kernel reads: weights of its first panel; the others of the tile, which begins
// there.
struct VnniOperands {
  const uint8_t* w;
  int64_t panel_stride;  // bytes
  const int8_t* x;
  const int32_t* starts;
  const float* sums;
  const float* runs;
  int64_t depth;
  const uint8_t* next;  // weights that are wanted after these, as far apart
  int32_t fetches;      // lines of them to ask for in each round of the loop over weights

  // With each round its part: the processor waits where more is asked for than can be under way.
  template <int P>
  void fetch() {
    for (int32_t i = 0; i < fetches; ++i, next += kLineBytes) {
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) __builtin_prefetch(next + p * panel_stride, 0, 2);
    }
  }
};

// The sums of a tile. Small tiles keep several chains apart and add them up at the end, so that a
// sum need not wait for the one before it; in int32 their order is of no account.
template <class S, int M, int P>
struct Sums {
  using Words = typename S::Words;
  static constexpr int kRoom = S::kSums / (M * P);
  static constexpr int kChains = kRoom >= 4 ? 4 : kRoom >= 2 ? 2 : 1;
  Words sums[kChains][M][P];

  // From words for each row, a piece of the tile apart, or from `Base`.
  template <bool FromWords, int32_t Base = 0>
  void start(const int32_t* starts) {
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        sums[0][m][p] = Words::broadcast(FromWords ? starts[m * kLineWords] : Base);
#pragma GCC unroll 4
        for (int c = 1; c < kChains; ++c) sums[c][m][p] = Words::broadcast(0);
      }
    }
  }
  // Adds the products of the panels' weights with the word at `x` of each row, a piece apart.
  void add(int step, const Words (&w)[P], const int8_t* x) {
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) sums[step % kChains][m][p].add(w[p], x + m * kLineBytes);
    }
  }
  Words of(int m, int p) const {
    Words sum = sums[0][m][p];
#pragma GCC unroll 4
    for (int c = 1; c < kChains; ++c) sum = sum + sums[c][m][p];
    return sum;
  }
  typename S::Lanes lanes(int m, int p) const { return of(m, p).lanes(); }
};

}  // namespace
}  // namespace edge
