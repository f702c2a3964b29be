// Sixteen virtual float lanes as one AVX-512 vector; see lanes_scalar.h for the meaning of each
// function. Only for files compiled with AVX-512 F, BW, DQ and VL.
#pragma once

#include <immintrin.h>

#include "core/kernel.h"
#include "simd/half.h"

#define EDGE_INLINE inline __attribute__((always_inline))

namespace edge::avx512 {

struct Mask {
  __mmask16 lanes;

  static EDGE_INLINE Mask first(int32_t count) { return {__mmask16((1u << count) - 1)}; }
  static EDGE_INLINE Mask range(int32_t begin, int32_t end) {
    return {__mmask16(((1u << end) - 1) & ~((1u << begin) - 1))};
  }
  static EDGE_INLINE Mask from_bits(uint32_t bits) { return {__mmask16(bits)}; }
  EDGE_INLINE uint32_t bits() const { return lanes; }
};

EDGE_INLINE Mask operator&(Mask a, Mask b) { return {__mmask16(a.lanes & b.lanes)}; }

struct Lanes {
  using Mask = avx512::Mask;
  static constexpr int kTileSums = 24;
  __m512 v;

  static EDGE_INLINE Lanes broadcast(float value) { return {_mm512_set1_ps(value)}; }
  static EDGE_INLINE Lanes load(const float* from) { return {_mm512_loadu_ps(from)}; }
  static EDGE_INLINE Lanes load(const Half* from) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
  }
  static EDGE_INLINE Lanes load(const int8_t* from) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))};
  }
  static EDGE_INLINE Lanes load_first(const float* from, int32_t count) {
    return {_mm512_maskz_loadu_ps(Mask::first(count).lanes, from)};
  }
  EDGE_INLINE void store(float* to) const { _mm512_storeu_ps(to, v); }
  EDGE_INLINE void store(Half* to) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  EDGE_INLINE void store(int8_t* to) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
  }
  EDGE_INLINE void store_first(float* to, int32_t count) const {
    _mm512_mask_storeu_ps(to, Mask::first(count).lanes, v);
  }
  EDGE_INLINE float first() const { return _mm512_cvtss_f32(v); }
};

#define EDGE_LANEWISE(name, instruction) \
  EDGE_INLINE Lanes name(Lanes a, Lanes b) { return {instruction(a.v, b.v)}; }
EDGE_LANEWISE(operator+, _mm512_add_ps)
EDGE_LANEWISE(operator-, _mm512_sub_ps)
EDGE_LANEWISE(operator*, _mm512_mul_ps)
EDGE_LANEWISE(operator/, _mm512_div_ps)
EDGE_LANEWISE(min, _mm512_min_ps)
EDGE_LANEWISE(max, _mm512_max_ps)
#undef EDGE_LANEWISE

#define EDGE_COMPARE(name, predicate) \
  EDGE_INLINE Mask name(Lanes a, Lanes b) { return {_mm512_cmp_ps_mask(a.v, b.v, predicate)}; }
EDGE_COMPARE(less, _CMP_LT_OQ)
EDGE_COMPARE(less_equal, _CMP_LE_OQ)
EDGE_COMPARE(equal, _CMP_EQ_OQ)
#undef EDGE_COMPARE

EDGE_INLINE Lanes fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }

EDGE_INLINE Lanes operator-(Lanes a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }

EDGE_INLINE Lanes abs(Lanes a) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.v)}; }

EDGE_INLINE Lanes select(Mask mask, Lanes a, Lanes b) {
  return {_mm512_mask_blend_ps(mask.lanes, b.v, a.v)};
}

EDGE_INLINE float sum(Lanes a) {
  __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

EDGE_INLINE float max(Lanes a) {
  __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

EDGE_INLINE Lanes scale_by_power(Lanes a, Lanes biased) {
  const __m512 n = _mm512_sub_ps(biased.v, _mm512_set1_ps(12582912.0f));
  return {_mm512_scalef_ps(a.v, n)};  // rounds once by itself
}

}  // namespace edge::avx512

#undef EDGE_INLINE
