// Sums over 4-bit codes. One 32-bit lane is one output row; vpmaddubsw multiplies four unsigned
// nibbles with four consecutive k of x and leaves two 16-bit sums, which are added up, wrapping,
// over a span of k. Of int4 (nibbles q + 8) each sum starts from -8 * sum(x), so what it ends at is
// sum(q x) modulo 2^16, and the wraps on the way cancel as long as that fits 16 bits. A span of 32
// k adds 16 products to a half: at most 16 * 8 * 128 = 2^14. A span of 64 adds 32, within [-32 * 8
// * 127, 32 * 8 * 128] =
// [-32512, 32768]: one too many, so those start 128 lower and 2 * 128 comes back after widening.
//
// Unsigned codes over spans of 32 need none of that: 16 * 15 * 128 = 30720 fits, and sums start
// from 0. Over spans of 64 they do not fit, and are treated as int4.

namespace edge {
namespace {

constexpr int32_t kSpanOffset = 128;

// The words from which the 16-bit sums start: -8 times the sum of x that each half will meet, which
// turns the stored nibbles q + 8 back into q, minus an offset that keeps spans of 64 within 16
// bits.
struct HalfStarts {
  int32_t span;  // k that are summed in 16 bits before they are widened; 0: no start words

  static __m256i add(__m256i sums, __m256i bytes) {
    return _mm256_add_epi16(sums, _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes));
  }
  int32_t word(__m256i pairs) const {
    __m128i sums = _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    sums = _mm_add_epi16(sums, _mm_shuffle_epi32(sums, 0x4E));
    sums = _mm_add_epi16(sums, _mm_shuffle_epi32(sums, 0xB1));
    const __m128i offset = _mm_set1_epi16(span > kBlock ? -kSpanOffset : 0);
    return _mm_cvtsi128_si32(_mm_sub_epi16(offset, _mm_slli_epi16(sums, 3)));
  }
};

// Of span 0 where sums start from 0.
constexpr HalfStarts starts_of(WeightFormat format) {
  const int32_t span = format.group < 64 ? format.group : 64;
  return {format.code == Code::u4 && span == kBlock ? 0 : span};
}

// sums += w * x in 16-bit halves. Pinned, because gcc otherwise moves all products of a tile ahead
// of all sums and spills them.
inline void multiply_add(__m256i& sums, __m256i w, __m256i x) {
  __m256i product;
  asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(sums), "=x"(product) : "x"(w), "x"(x));
}

// sums[m][h]: 16-bit sums of token m for rows 8h .. 8h + 7 over `Blocks` blocks of packed nibbles.
template <int M, int Blocks>
inline void sum_packed(const uint8_t* w, const int8_t* x, __m256i (&sums)[M][2]) {
  const __m256i mask = _mm256_set1_epi8(15);
#pragma GCC unroll 8
  for (int c = 0; c < 4 * Blocks; ++c) {
    const __m256i pairs0 = load_bytes(w + 64 * c), pairs1 = load_bytes(w + 64 * c + 32);
    const __m256i low0 = _mm256_and_si256(pairs0, mask), low1 = _mm256_and_si256(pairs1, mask);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const __m256i word = broadcast_word(x + (2 * c * M + m) * 4);
      multiply_add(sums[m][0], low0, word);
      multiply_add(sums[m][1], low1, word);
    }
    const __m256i high0 = _mm256_and_si256(_mm256_srli_epi16(pairs0, 4), mask);
    const __m256i high1 = _mm256_and_si256(_mm256_srli_epi16(pairs1, 4), mask);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const __m256i word = broadcast_word(x + ((2 * c + 1) * M + m) * 4);
      multiply_add(sums[m][0], high0, word);
      multiply_add(sums[m][1], high1, word);
    }
  }
}

// The same over bytes [k / 4][16 rows][4].
template <int M, int Blocks>
inline void sum_bytes(const uint8_t* w, const int8_t* x, __m256i (&sums)[M][2]) {
#pragma GCC unroll 16
  for (int step = 0; step < 8 * Blocks; ++step) {
    const __m256i w0 = load_bytes(w + 64 * step), w1 = load_bytes(w + 64 * step + 32);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const __m256i word = broadcast_word(x + (step * M + m) * 4);
      multiply_add(sums[m][0], w0, word);
      multiply_add(sums[m][1], w1, word);
    }
  }
}

}  // namespace
}  // namespace edge
