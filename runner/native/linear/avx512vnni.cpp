// Linear kernels of AVX-512 with VNNI. One vector is the 16 rows of a panel.
// clang-format off: each part uses those before it
#include "linear/avx2_common.inl"
#include "linear/avx2_quantize.inl"
#include "linear/avx2_float.inl"
#include "linear/vnni_sums.inl"
#include "linear/vnni_groups.inl"
#include "linear/vnni.inl"
// clang-format on
#include "simd/lanes_avx512.h"

namespace edge {
namespace {

struct Avx512Vnni {
  using Lanes = avx512::Lanes;
  static constexpr int kFewRows = 8, kTileRows = 6, kTilePanels = 2, kSums = 8, kTotals = 16;

  struct Words {
    __m512i v;

    // Groups of int4 leave panels aligned to 32 bytes.
    static Words load(const void* data) { return {_mm512_loadu_si512(data)}; }
    static Words broadcast(int32_t word) { return {_mm512_set1_epi32(word)}; }
    static Words repeat(const float* word) { return {_mm512_castps_si512(_mm512_set1_ps(*word))}; }
    static Words widen(const uint8_t* bytes) {
      return {_mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes)))};
    }
    static Words widen(const int8_t* bytes) {
      return {_mm512_cvtepi8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes)))};
    }
    void store(int32_t* to) const { _mm512_store_si512(to, v); }
    Words low_nibbles() const { return {_mm512_and_si512(v, _mm512_set1_epi8(15))}; }
    Words high_nibbles() const {
      return {_mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15))};
    }
    Words plus_128() const { return {_mm512_xor_si512(v, _mm512_set1_epi8(-128))}; }
    Words levels(const uint8_t (&table)[16]) const {
      const __m128i bytes = _mm_load_si128(reinterpret_cast<const __m128i*>(table));
      return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(bytes), v)};
    }
    template <int Left, int Mask>
    Words field() const {
      const __m512i moved = Left >= 0 ? _mm512_slli_epi16(v, Left >= 0 ? Left : 0)
                                      : _mm512_srli_epi16(v, Left >= 0 ? 0 : -Left);
      return {_mm512_and_si512(moved, _mm512_set1_epi8(Mask))};
    }
    void add(Words weights, const int8_t* x) {
      int32_t word;
      std::memcpy(&word, x, 4);
      v = _mm512_dpbusd_epi32(v, weights.v, _mm512_set1_epi32(word));
    }
    void add_pairs(Words a, Words b) { v = _mm512_dpwssd_epi32(v, a.v, b.v); }
    void add_scaled(Words a, Words b) { v = _mm512_add_epi32(v, _mm512_mullo_epi32(a.v, b.v)); }
    Words upper() const { return {_mm512_slli_epi32(v, 16)}; }
    Words operator|(Words other) const { return {_mm512_or_si512(v, other.v)}; }
    Words operator+(Words other) const { return {_mm512_add_epi32(v, other.v)}; }
    Lanes exponents() const {
      const __m512i smallest = _mm512_set1_epi32(kSmallestExponent);
      return {_mm512_castsi512_ps(_mm512_max_epi32(_mm512_slli_epi32(v, 23), smallest))};
    }
    Lanes floats() const { return {_mm512_castsi512_ps(v)}; }
    Lanes lanes() const { return {_mm512_cvtepi32_ps(v)}; }
  };
};

}  // namespace

const LinearKernels linear_avx512vnni = linear_vnni<Avx512Vnni>();

}  // namespace edge
