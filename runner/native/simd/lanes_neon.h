// Sixteen virtual float lanes as four NEON vectors; see lanes_scalar.h for the meaning of each
// function. Baseline aarch64: no instruction that an ARMv8.0 processor lacks.
//
// Minimum and maximum are a compare and a select: NEON's own hand on a NaN from either side, which
// no other instruction set here does.
#pragma once

#include <arm_neon.h>

#include <cstring>

#include "core/kernel.h"
#include "simd/half.h"

#define EDGE_INLINE inline __attribute__((always_inline))

namespace edge::neon {

alignas(64) static constexpr uint32_t kMaskTable[3 * kLanes] = {
    0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,    // 0
    ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u,  // 16
    0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0};

struct Mask {
  uint32x4_t a, b, c, d;

  static EDGE_INLINE Mask at(const uint32_t* table) {
    return {vld1q_u32(table), vld1q_u32(table + 4), vld1q_u32(table + 8), vld1q_u32(table + 12)};
  }
  static EDGE_INLINE Mask first(int32_t count) { return at(kMaskTable + 2 * kLanes - count); }
  static EDGE_INLINE Mask range(int32_t begin, int32_t end) {
    Mask upper = first(end), lower = first(begin);
    return {vbicq_u32(upper.a, lower.a), vbicq_u32(upper.b, lower.b), vbicq_u32(upper.c, lower.c),
            vbicq_u32(upper.d, lower.d)};
  }
  static EDGE_INLINE Mask from_bits(uint32_t bits) {
    const uint32x4_t all = vdupq_n_u32(bits), one = {1, 2, 4, 8};
    return {vtstq_u32(all, one), vtstq_u32(all, vshlq_n_u32(one, 4)),
            vtstq_u32(all, vshlq_n_u32(one, 8)), vtstq_u32(all, vshlq_n_u32(one, 12))};
  }
  EDGE_INLINE uint32_t bits() const {
    const uint16x8_t low = vuzp1q_u16(vreinterpretq_u16_u32(a), vreinterpretq_u16_u32(b));
    const uint16x8_t high = vuzp1q_u16(vreinterpretq_u16_u32(c), vreinterpretq_u16_u32(d));
    const uint16x8_t place = {1, 2, 4, 8, 16, 32, 64, 128};
    return uint32_t(vaddvq_u16(vandq_u16(low, place))) |
           uint32_t(vaddvq_u16(vandq_u16(high, place))) << 8;
  }
};

EDGE_INLINE Mask operator&(Mask x, Mask y) {
  return {vandq_u32(x.a, y.a), vandq_u32(x.b, y.b), vandq_u32(x.c, y.c), vandq_u32(x.d, y.d)};
}

struct Lanes {
  using Mask = neon::Mask;
  static constexpr int kTileSums = 4;
  float32x4_t a, b, c, d;

  static EDGE_INLINE Lanes broadcast(float value) {
    const float32x4_t all = vdupq_n_f32(value);
    return {all, all, all, all};
  }
  static EDGE_INLINE Lanes load(const float* from) {
    return {vld1q_f32(from), vld1q_f32(from + 4), vld1q_f32(from + 8), vld1q_f32(from + 12)};
  }
  static EDGE_INLINE Lanes load(const Half* from) {
    const uint16_t* bits = reinterpret_cast<const uint16_t*>(from);
    const float16x8_t low = vreinterpretq_f16_u16(vld1q_u16(bits));
    const float16x8_t high = vreinterpretq_f16_u16(vld1q_u16(bits + 8));
    return {vcvt_f32_f16(vget_low_f16(low)), vcvt_high_f32_f16(low),
            vcvt_f32_f16(vget_low_f16(high)), vcvt_high_f32_f16(high)};
  }
  static EDGE_INLINE Lanes load(const int8_t* from) {
    const int8x16_t bytes = vld1q_s8(from);
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))};
  }
  static EDGE_INLINE Lanes load_first(const float* from, int32_t count) {
    float lanes[kLanes] = {};
    std::memcpy(lanes, from, size_t(count) * sizeof(float));
    return load(lanes);
  }
  EDGE_INLINE void store(float* to) const {
    vst1q_f32(to, a);
    vst1q_f32(to + 4, b);
    vst1q_f32(to + 8, c);
    vst1q_f32(to + 12, d);
  }
  EDGE_INLINE void store(Half* to) const {
    uint16_t* bits = reinterpret_cast<uint16_t*>(to);
    vst1q_u16(bits, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(a), b)));
    vst1q_u16(bits + 8, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(c), d)));
  }
  EDGE_INLINE void store(int8_t* to) const {
    const int16x8_t low =
        vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(a)), vqmovn_s32(vcvtnq_s32_f32(b)));
    const int16x8_t high =
        vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(c)), vqmovn_s32(vcvtnq_s32_f32(d)));
    vst1q_s8(to, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
  }
  EDGE_INLINE void store_first(float* to, int32_t count) const {
    float lanes[kLanes];
    store(lanes);
    std::memcpy(to, lanes, size_t(count) * sizeof(float));
  }
  EDGE_INLINE float first() const { return vgetq_lane_f32(a, 0); }
};

EDGE_INLINE float32x4_t lesser(float32x4_t x, float32x4_t y) {
  return vbslq_f32(vcltq_f32(x, y), x, y);
}
EDGE_INLINE float32x4_t greater(float32x4_t x, float32x4_t y) {
  return vbslq_f32(vcgtq_f32(x, y), x, y);
}

#define EDGE_LANEWISE(result, name, instruction)                                 \
  EDGE_INLINE result name(Lanes x, Lanes y) {                                    \
    return {instruction(x.a, y.a), instruction(x.b, y.b), instruction(x.c, y.c), \
            instruction(x.d, y.d)};                                              \
  }
EDGE_LANEWISE(Lanes, operator+, vaddq_f32)
EDGE_LANEWISE(Lanes, operator-, vsubq_f32)
EDGE_LANEWISE(Lanes, operator*, vmulq_f32)
EDGE_LANEWISE(Lanes, operator/, vdivq_f32)
EDGE_LANEWISE(Lanes, min, lesser)
EDGE_LANEWISE(Lanes, max, greater)
EDGE_LANEWISE(Mask, less, vcltq_f32)
EDGE_LANEWISE(Mask, less_equal, vcleq_f32)
EDGE_LANEWISE(Mask, equal, vceqq_f32)
#undef EDGE_LANEWISE

EDGE_INLINE Lanes fma(Lanes x, Lanes y, Lanes z) {
  return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c),
          vfmaq_f32(z.d, x.d, y.d)};
}

EDGE_INLINE Lanes operator-(Lanes x) {
  return {vnegq_f32(x.a), vnegq_f32(x.b), vnegq_f32(x.c), vnegq_f32(x.d)};
}

EDGE_INLINE Lanes abs(Lanes x) {
  return {vabsq_f32(x.a), vabsq_f32(x.b), vabsq_f32(x.c), vabsq_f32(x.d)};
}

EDGE_INLINE Lanes select(Mask mask, Lanes x, Lanes y) {
  return {vbslq_f32(mask.a, x.a, y.a), vbslq_f32(mask.b, x.b, y.b), vbslq_f32(mask.c, x.c, y.c),
          vbslq_f32(mask.d, x.d, y.d)};
}

EDGE_INLINE float sum(Lanes x) {
  const float32x4_t four = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

EDGE_INLINE float max(Lanes x) {
  const float32x4_t four = greater(greater(x.a, x.c), greater(x.b, x.d));
  const float32x4_t two = greater(four, vextq_f32(four, four, 2));
  const float low = vgetq_lane_f32(two, 0), high = vgetq_lane_f32(two, 1);
  return low > high ? low : high;
}

static EDGE_INLINE float32x4_t scale_four_by_power(float32x4_t x, float32x4_t biased) {
  const int32x4_t n = vsubq_s32(vreinterpretq_s32_f32(biased), vdupq_n_s32(0x4b400000));
  const int32x4_t half = vshrq_n_s32(n, 1), bias = vdupq_n_s32(127);
  const int32x4_t low = vshlq_n_s32(vaddq_s32(half, bias), 23);
  const int32x4_t high = vshlq_n_s32(vaddq_s32(vsubq_s32(n, half), bias), 23);
  return vmulq_f32(vmulq_f32(x, vreinterpretq_f32_s32(low)), vreinterpretq_f32_s32(high));
}

EDGE_INLINE Lanes scale_by_power(Lanes x, Lanes biased) {
  return {scale_four_by_power(x.a, biased.a), scale_four_by_power(x.b, biased.b),
          scale_four_by_power(x.c, biased.c), scale_four_by_power(x.d, biased.d)};
}

}  // namespace edge::neon

#undef EDGE_INLINE
