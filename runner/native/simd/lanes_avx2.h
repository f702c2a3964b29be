// Sixteen virtual float lanes as two AVX2 vectors; see lanes_scalar.h for the meaning of each
// function. Only for files compiled with AVX2, FMA and F16C.
#pragma once

#include <immintrin.h>

#include "core/kernel.h"
#include "simd/half.h"

#define EDGE_INLINE inline __attribute__((always_inline))

namespace edge::avx2 {

alignas(64) static constexpr int32_t kMaskTable[3 * kLanes] = {
    0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,   // 0
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,  // 16
    0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0};

struct Mask {
  __m256 lo, hi;

  static EDGE_INLINE Mask at(const int32_t* table) {
    return {_mm256_loadu_ps(reinterpret_cast<const float*>(table)),
            _mm256_loadu_ps(reinterpret_cast<const float*>(table + 8))};
  }
  static EDGE_INLINE Mask first(int32_t count) { return at(kMaskTable + 2 * kLanes - count); }
  static EDGE_INLINE Mask range(int32_t begin, int32_t end) {
    Mask upper = first(end), lower = first(begin);
    return {_mm256_andnot_ps(lower.lo, upper.lo), _mm256_andnot_ps(lower.hi, upper.hi)};
  }
  static EDGE_INLINE Mask from_bits(uint32_t bits) {
    __m256i all = _mm256_set1_epi32(int32_t(bits));
    __m256i lo = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i hi = _mm256_slli_epi32(lo, 8);
    return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(all, lo), lo)),
            _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(all, hi), hi))};
  }
  EDGE_INLINE uint32_t bits() const {
    return uint32_t(_mm256_movemask_ps(lo)) | uint32_t(_mm256_movemask_ps(hi)) << 8;
  }
};

EDGE_INLINE Mask operator&(Mask a, Mask b) {
  return {_mm256_and_ps(a.lo, b.lo), _mm256_and_ps(a.hi, b.hi)};
}

struct Lanes {
  using Mask = avx2::Mask;
  static constexpr int kTileSums = 4;
  __m256 lo, hi;

  static EDGE_INLINE Lanes broadcast(float value) {
    __m256 all = _mm256_set1_ps(value);
    return {all, all};
  }
  static EDGE_INLINE Lanes load(const float* from) {
    return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
  }
  static EDGE_INLINE Lanes load(const Half* from) {
    const __m128i* halves = reinterpret_cast<const __m128i*>(from);
    return {_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
  }
  static EDGE_INLINE Lanes load(const int8_t* from) {
    const __m128i* eights = reinterpret_cast<const __m128i*>(from);
    const __m128i* more = reinterpret_cast<const __m128i*>(from + 8);
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(eights))),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(more)))};
  }
  static EDGE_INLINE Lanes load_first(const float* from, int32_t count) {
    Mask mask = Mask::first(count);
    return {_mm256_maskload_ps(from, _mm256_castps_si256(mask.lo)),
            _mm256_maskload_ps(from + 8, _mm256_castps_si256(mask.hi))};
  }
  EDGE_INLINE void store(float* to) const {
    _mm256_storeu_ps(to, lo);
    _mm256_storeu_ps(to + 8, hi);
  }
  EDGE_INLINE void store(Half* to) const {
    __m128i* halves = reinterpret_cast<__m128i*>(to);
    _mm_storeu_si128(halves, _mm256_cvtps_ph(lo, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(halves + 1, _mm256_cvtps_ph(hi, _MM_FROUND_TO_NEAREST_INT));
  }
  EDGE_INLINE void store(int8_t* to) const {
    __m256i pairs = _mm256_packs_epi32(_mm256_cvtps_epi32(lo), _mm256_cvtps_epi32(hi));
    pairs = _mm256_permute4x64_epi64(pairs, 0xd8);  // packs worked within 128-bit halves
    __m128i bytes =
        _mm_packs_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
  }
  EDGE_INLINE void store_first(float* to, int32_t count) const {
    Mask mask = Mask::first(count);
    _mm256_maskstore_ps(to, _mm256_castps_si256(mask.lo), lo);
    _mm256_maskstore_ps(to + 8, _mm256_castps_si256(mask.hi), hi);
  }
  EDGE_INLINE float first() const { return _mm256_cvtss_f32(lo); }
};

#define EDGE_LANEWISE(name, instruction)                       \
  EDGE_INLINE Lanes name(Lanes a, Lanes b) {                   \
    return {instruction(a.lo, b.lo), instruction(a.hi, b.hi)}; \
  }
EDGE_LANEWISE(operator+, _mm256_add_ps)
EDGE_LANEWISE(operator-, _mm256_sub_ps)
EDGE_LANEWISE(operator*, _mm256_mul_ps)
EDGE_LANEWISE(operator/, _mm256_div_ps)
EDGE_LANEWISE(min, _mm256_min_ps)
EDGE_LANEWISE(max, _mm256_max_ps)
#undef EDGE_LANEWISE

#define EDGE_COMPARE(name, predicate)                                                    \
  EDGE_INLINE Mask name(Lanes a, Lanes b) {                                              \
    return {_mm256_cmp_ps(a.lo, b.lo, predicate), _mm256_cmp_ps(a.hi, b.hi, predicate)}; \
  }
EDGE_COMPARE(less, _CMP_LT_OQ)
EDGE_COMPARE(less_equal, _CMP_LE_OQ)
EDGE_COMPARE(equal, _CMP_EQ_OQ)
#undef EDGE_COMPARE

EDGE_INLINE Lanes fma(Lanes a, Lanes b, Lanes c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}

EDGE_INLINE Lanes operator-(Lanes a) {
  __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_xor_ps(a.lo, sign), _mm256_xor_ps(a.hi, sign)};
}

EDGE_INLINE Lanes abs(Lanes a) {
  __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}

EDGE_INLINE Lanes select(Mask mask, Lanes a, Lanes b) {
  return {_mm256_blendv_ps(b.lo, a.lo, mask.lo), _mm256_blendv_ps(b.hi, a.hi, mask.hi)};
}

EDGE_INLINE float sum(Lanes a) {
  __m256 eight = _mm256_add_ps(a.lo, a.hi);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

EDGE_INLINE float max(Lanes a) {
  __m256 eight = _mm256_max_ps(a.lo, a.hi);
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

static EDGE_INLINE __m256 scale_eight_by_power(__m256 a, __m256 biased) {
  __m256i n = _mm256_sub_epi32(_mm256_castps_si256(biased), _mm256_set1_epi32(0x4b400000));
  __m256i half = _mm256_srai_epi32(n, 1);
  __m256i bias = _mm256_set1_epi32(127);
  __m256i low = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  __m256i high = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(n, half), bias), 23);
  return _mm256_mul_ps(_mm256_mul_ps(a, _mm256_castsi256_ps(low)), _mm256_castsi256_ps(high));
}

EDGE_INLINE Lanes scale_by_power(Lanes a, Lanes biased) {
  return {scale_eight_by_power(a.lo, biased.lo), scale_eight_by_power(a.hi, biased.hi)};
}

}  // namespace edge::avx2

#undef EDGE_INLINE
