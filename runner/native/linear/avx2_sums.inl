// Sums over codes in groups. One 32-bit lane is one output row; vpmaddubsw multiplies four unsigned
// codes with four consecutive k of x and leaves two 16-bit sums, which are added up, wrapping, over
// a span of k. Of codes that became unsigned by an offset each sum starts from minus that offset
// times sum(x), so what it ends at is sum(q x) modulo 2^16, and the wraps on the way cancel as long
// as that fits 16 bits. Of n codes of b bits below and above 0 it is within [-n / 2 * 2^(b-1) *
// 127, n / 2 * 2^(b-1) * 128]:
//   i4 over 32 k, e2m1 (at most 12) over 32 k     fit
//   i4 over 64 k, i5 over 32 k, i6 over 16 k      within [-32512, 32768]: one too many, so those
//                                                 start 128 lower, and 2 * 128 comes back after
//                                                 widening
// Unsigned codes that fit need none of that and start from 0: u4 over 32 k, 16 * 15 * 128, and u5
// over 16 k, 8 * 31 * 128. u4 over 64 k does not fit, and is treated as i4.
//
// Bytes (i8, nl4) are widened at once: |x| is the unsigned factor, and the sign of x moves to the
// weight, exact because weights stop at -127. A pair is at most 2 * 128 * 127 = 32512.

namespace edge {
namespace {

constexpr int32_t kSpanOffset = 128;

static constexpr bool is_wide(Code code) { return code == Code::i8 || code == Code::nl4; }

// The words from which the 16-bit sums start: minus `offset` times the sum of x that each half will
// meet, which turns stored codes back into q, and where they are `lowered` kSpanOffset less.
struct HalfStarts {
  int32_t span;  // k that are summed in 16 bits before they are widened; 0: no start words
  int32_t offset;
  bool lowered;

  static __m256i add(__m256i sums, __m256i bytes) {
    return _mm256_add_epi16(sums, _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes));
  }
  int32_t word(__m256i pairs) const {
    __m128i sums = _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    sums = _mm_add_epi16(sums, _mm_shuffle_epi32(sums, 0x4E));
    sums = _mm_add_epi16(sums, _mm_shuffle_epi32(sums, 0xB1));
    const __m128i start = _mm_set1_epi16(lowered ? -kSpanOffset : 0);
    const auto factor = static_cast<int16_t>(offset);
    return _mm_cvtsi128_si32(_mm_sub_epi16(start, _mm_mullo_epi16(sums, _mm_set1_epi16(factor))));
  }
};

// Of span 0 where sums start from 0.
constexpr HalfStarts starts_of(WeightFormat format) {
  const int32_t most = format.code == Code::i6 ? 16 : 64;
  const int32_t columns = summed_columns(format), span = columns < most ? columns : most;
  const bool as_i4 = format.code == Code::u4 && span > kBlock;
  const int32_t offset = as_i4 ? 8 : code_offset(format.code);
  if (offset == 0 || is_wide(format.code)) return {0, 0, false};
  const bool fits = format.code == Code::e2m1 || (offset == 8 && span == kBlock);
  return {span, offset, !fits};
}

// sums += w * x in 16-bit halves. Pinned, because gcc otherwise moves all products of a tile ahead
// of all sums and spills them.
inline void multiply_add(__m256i& sums, __m256i w, __m256i x) {
  __m256i product;
  asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(sums), "=x"(product) : "x"(w), "x"(x));
}

// sums += w * x in int32, of signed bytes.
inline void multiply_add_wide(__m256i& sums, __m256i w, __m256i x) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(w, x));
  sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

// The weights of rows 8 h .. 8 h + 7 at step `s` (four k) of a group's codes, as kernels multiply
// them: unsigned, or signed where they are wide.
template <class F, int s>
inline __m256i step_codes(const uint8_t* codes, int h) {
  constexpr int kBits = code_bits(F::kCode);
  if constexpr (kBits == 8) {
    return load_bytes(codes + 64 * s + 32 * h);
  } else {
    const __m256i mask = _mm256_set1_epi8(15);
    const __m256i pairs = load_bytes(codes + s / 2 * 64 + 32 * h);
    const __m256i low = _mm256_and_si256(s % 2 ? _mm256_srli_epi16(pairs, 4) : pairs, mask);
    if constexpr (has_levels(F::kCode)) {
      static constexpr LevelTable kUnsigned = unsigned_levels(F::kCode);
      const void* table = is_wide(F::kCode) ? static_cast<const void*>(kNl4) : kUnsigned.bytes;
      const __m128i levels = _mm_load_si128(static_cast<const __m128i*>(table));
      return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(levels), low);
    } else if constexpr (kBits > 4) {
      constexpr int kMask = ((1 << (kBits - 4)) - 1) << 4, kLeft = 4 - plane_shift(F::kCode, s);
      const __m256i planes = load_bytes(codes + plane_offset(F::kFormat, s) + 32 * h);
      return _mm256_or_si256(low, field<kLeft, kMask>(planes));
    } else {
      return low;
    }
  }
}

// Adds the steps from `s` to `End` to sums[m][h], those of token m for rows 8 h .. 8 h + 7. Codes
// are as in the file, or bytes [step][16 rows][4]; `x` is a piece of the first token.
template <class F, bool Packed, int s, int End, int M>
__attribute__((always_inline)) inline void add_steps(const uint8_t* codes, const int8_t* x,
                                                     __m256i (&sums)[M][2]) {
  if constexpr (s < End) {
    const __m256i w0 = Packed ? step_codes<F, s>(codes, 0) : load_bytes(codes + 64 * s);
    const __m256i w1 = Packed ? step_codes<F, s>(codes, 1) : load_bytes(codes + 64 * s + 32);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const __m256i word = broadcast_word(x + s * 4 + m * kLineBytes);
      if constexpr (is_wide(F::kCode)) {
        multiply_add_wide(sums[m][0], w0, word);
        multiply_add_wide(sums[m][1], w1, word);
      } else {
        multiply_add(sums[m][0], w0, word);
        multiply_add(sums[m][1], w1, word);
      }
    }
    add_steps<F, Packed, s + 1, End>(codes, x, sums);
  }
}

}  // namespace
}  // namespace edge
