// Sixteen virtual float lanes in portable C++: the oracle that every vector version equals bit for
// bit. Operators round once per lane; contraction is off, so a fused multiply-add happens only in
// fma().
#pragma once

#include <cmath>

#include "core/kernel.h"
#include "simd/half.h"

namespace edge::scalar {

// One bit per lane.
struct Mask {
  uint32_t lanes;

  static Mask first(int32_t count) { return {(1u << count) - 1}; }
  static Mask range(int32_t begin, int32_t end) {
    return {((1u << end) - 1) & ~((1u << begin) - 1)};
  }
  static Mask from_bits(uint32_t bits) { return {bits & 0xffffu}; }
  uint32_t bits() const { return lanes; }
};

inline Mask operator&(Mask a, Mask b) { return {a.lanes & b.lanes}; }

struct Lanes {
  using Mask = scalar::Mask;
  // Sums that fill the registers when they are spread over as few rows as need it.
  static constexpr int kTileSums = 4;
  float v[kLanes];

  static Lanes broadcast(float value) {
    Lanes out;
    for (float& lane : out.v) lane = value;
    return out;
  }
  static Lanes load(const float* from) {
    Lanes out;
    for (int i = 0; i < kLanes; ++i) out.v[i] = from[i];
    return out;
  }
  static Lanes load(const Half* from) {
    Lanes out;
    for (int i = 0; i < kLanes; ++i) out.v[i] = float_from_half(from[i]);
    return out;
  }
  static Lanes load(const int8_t* from) {
    Lanes out;
    for (int i = 0; i < kLanes; ++i) out.v[i] = float(from[i]);
    return out;
  }
  // The first `count` (0 to 16) lanes; the others are zero and their memory is not touched.
  static Lanes load_first(const float* from, int32_t count) {
    Lanes out = broadcast(0.0f);
    for (int i = 0; i < count; ++i) out.v[i] = from[i];
    return out;
  }
  void store(float* to) const {
    for (int i = 0; i < kLanes; ++i) to[i] = v[i];
  }
  void store(Half* to) const {
    for (int i = 0; i < kLanes; ++i) to[i] = half_from_float(v[i]);
  }
  // Rounded to nearest even; lanes are within [-128, 127].
  void store(int8_t* to) const {
    for (int i = 0; i < kLanes; ++i) {
      to[i] = int8_t(float_bits(v[i] + bits_float(0x4b400000u)) - 0x4b400000u);
    }
  }
  void store_first(float* to, int32_t count) const {
    for (int i = 0; i < count; ++i) to[i] = v[i];
  }
  float first() const { return v[0]; }
};

#define EDGE_LANEWISE(name, expression)               \
  inline Lanes name(const Lanes& a, const Lanes& b) { \
    Lanes out;                                        \
    for (int i = 0; i < kLanes; ++i) {                \
      float x = a.v[i], y = b.v[i];                   \
      out.v[i] = expression;                          \
    }                                                 \
    return out;                                       \
  }
EDGE_LANEWISE(operator+, x + y)
EDGE_LANEWISE(operator-, x - y)
EDGE_LANEWISE(operator*, x* y)
EDGE_LANEWISE(operator/, x / y)
// The second operand where the two are equal or either is NaN.
EDGE_LANEWISE(min, x < y ? x : y)
EDGE_LANEWISE(max, x > y ? x : y)
#undef EDGE_LANEWISE

#define EDGE_COMPARE(name, operation)                                                \
  inline Mask name(const Lanes& a, const Lanes& b) {                                 \
    uint32_t bits = 0;                                                               \
    for (int i = 0; i < kLanes; ++i) bits |= uint32_t(a.v[i] operation b.v[i]) << i; \
    return {bits};                                                                   \
  }
// All false where either operand is NaN.
EDGE_COMPARE(less, <)
EDGE_COMPARE(less_equal, <=)
EDGE_COMPARE(equal, ==)
#undef EDGE_COMPARE

// a * b + c, rounded once.
inline Lanes fma(const Lanes& a, const Lanes& b, const Lanes& c) {
  Lanes out;
  for (int i = 0; i < kLanes; ++i) out.v[i] = std::fma(a.v[i], b.v[i], c.v[i]);
  return out;
}

inline Lanes operator-(const Lanes& a) {
  Lanes out;
  for (int i = 0; i < kLanes; ++i) out.v[i] = bits_float(float_bits(a.v[i]) ^ 0x80000000u);
  return out;
}

inline Lanes abs(const Lanes& a) {
  Lanes out;
  for (int i = 0; i < kLanes; ++i) out.v[i] = bits_float(float_bits(a.v[i]) & 0x7fffffffu);
  return out;
}

// `a` where the mask is set, else `b`; the lane not chosen has no effect, NaN or not.
inline Lanes select(Mask mask, const Lanes& a, const Lanes& b) {
  Lanes out;
  for (int i = 0; i < kLanes; ++i) out.v[i] = mask.lanes >> i & 1u ? a.v[i] : b.v[i];
  return out;
}

// The fixed tree: lanes i and i + 8, then i + 4, i + 2, i + 1.
inline float sum(const Lanes& a) {
  Lanes t = a;
  for (int width = 8; width; width /= 2) {
    for (int i = 0; i < width; ++i) t.v[i] = t.v[i] + t.v[i + width];
  }
  return t.v[0];
}

inline float max(const Lanes& a) {
  Lanes t = a;
  for (int width = 8; width; width /= 2) {
    for (int i = 0; i < width; ++i) t.v[i] = t.v[i] > t.v[i + width] ? t.v[i] : t.v[i + width];
  }
  return t.v[0];
}

// a * 2^n, where the float32 `biased` is n + kIntegerBias (simd/math.h) and -252 <= n <= 254. Two
// factors, so that a subnormal result is rounded once.
inline Lanes scale_by_power(const Lanes& a, const Lanes& biased) {
  Lanes out;
  for (int i = 0; i < kLanes; ++i) {
    int32_t n = int32_t(float_bits(biased.v[i]) - 0x4b400000u);
    int32_t half = n >> 1;
    float low = bits_float(uint32_t(half + 127) << 23);
    float high = bits_float(uint32_t(n - half + 127) << 23);
    out.v[i] = a.v[i] * low * high;
  }
  return out;
}

}  // namespace edge::scalar
