// Linear kernels of AVX-VNNI: vpdpbusd for processors without AVX-512. Two vectors are the 16 rows
// of a panel.
// clang-format off: each part uses those before it
#include "linear/avx2_common.inl"
#include "linear/avx2_quantize.inl"
#include "linear/avx2_float.inl"
#include "linear/vnni_sums.inl"
#include "linear/vnni_groups.inl"
#include "linear/vnni.inl"
// clang-format on
#include "simd/lanes_avx2.h"

namespace edge {
namespace {

struct AvxVnni {
  using Lanes = avx2::Lanes;
  static constexpr int kFewRows = 6, kTileRows = 6, kTilePanels = 1, kSums = 4, kTotals = 2;

  struct Words {
    __m256i lo, hi;

    static Words load(const void* data) {
      const __m256i* halves = static_cast<const __m256i*>(data);
      return {_mm256_load_si256(halves), _mm256_load_si256(halves + 1)};
    }
    static Words broadcast(int32_t word) {
      const __m256i all = _mm256_set1_epi32(word);
      return {all, all};
    }
    static Words repeat(const float* word) {
      const __m256i all = _mm256_castps_si256(_mm256_broadcast_ss(word));
      return {all, all};
    }
    static Words widen(const uint8_t* bytes) {
      const __m128i all = _mm_load_si128(reinterpret_cast<const __m128i*>(bytes));
      return {_mm256_cvtepu8_epi32(all), _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(all, all))};
    }
    static Words widen(const int8_t* bytes) {
      const __m128i all = _mm_load_si128(reinterpret_cast<const __m128i*>(bytes));
      return {_mm256_cvtepi8_epi32(all), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(all, all))};
    }
    void store(int32_t* to) const {
      _mm256_store_si256(reinterpret_cast<__m256i*>(to), lo);
      _mm256_store_si256(reinterpret_cast<__m256i*>(to) + 1, hi);
    }
    Words low_nibbles() const {
      const __m256i mask = _mm256_set1_epi8(15);
      return {_mm256_and_si256(lo, mask), _mm256_and_si256(hi, mask)};
    }
    Words high_nibbles() const {
      const __m256i mask = _mm256_set1_epi8(15);
      return {_mm256_and_si256(_mm256_srli_epi16(lo, 4), mask),
              _mm256_and_si256(_mm256_srli_epi16(hi, 4), mask)};
    }
    Words plus_128() const {
      const __m256i flip = _mm256_set1_epi8(-128);
      return {_mm256_xor_si256(lo, flip), _mm256_xor_si256(hi, flip)};
    }
    Words levels(const uint8_t (&table)[16]) const {
      const __m256i all =
          _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
      return {_mm256_shuffle_epi8(all, lo), _mm256_shuffle_epi8(all, hi)};
    }
    template <int Left, int Mask>
    Words field() const {
      return {edge::field<Left, Mask>(lo), edge::field<Left, Mask>(hi)};
    }
    void add(Words weights, const int8_t* x) {
      int32_t word;
      std::memcpy(&word, x, 4);
      const __m256i all = _mm256_set1_epi32(word);
      lo = _mm256_dpbusd_avx_epi32(lo, weights.lo, all);
      hi = _mm256_dpbusd_avx_epi32(hi, weights.hi, all);
    }
    void add_pairs(Words a, Words b) {
      lo = _mm256_dpwssd_avx_epi32(lo, a.lo, b.lo);
      hi = _mm256_dpwssd_avx_epi32(hi, a.hi, b.hi);
    }
    void add_scaled(Words a, Words b) {
      lo = _mm256_add_epi32(lo, _mm256_mullo_epi32(a.lo, b.lo));
      hi = _mm256_add_epi32(hi, _mm256_mullo_epi32(a.hi, b.hi));
    }
    Words upper() const { return {_mm256_slli_epi32(lo, 16), _mm256_slli_epi32(hi, 16)}; }
    Words operator|(Words other) const {
      return {_mm256_or_si256(lo, other.lo), _mm256_or_si256(hi, other.hi)};
    }
    Words operator+(Words other) const {
      return {_mm256_add_epi32(lo, other.lo), _mm256_add_epi32(hi, other.hi)};
    }
    Lanes exponents() const {
      return {_mm256_castsi256_ps(exponent_bits(lo)), _mm256_castsi256_ps(exponent_bits(hi))};
    }
    Lanes floats() const { return {_mm256_castsi256_ps(lo), _mm256_castsi256_ps(hi)}; }
    Lanes lanes() const { return {_mm256_cvtepi32_ps(lo), _mm256_cvtepi32_ps(hi)}; }
  };
};

}  // namespace

const LinearKernels linear_avxvnni = linear_vnni<AvxVnni>();

}  // namespace edge
