// IEEE binary16 in software, for the scalar path: bit for bit what F16C does, NaN payloads
// included.
#pragma once

#include <cstdint>
#include <cstring>

namespace edge {

struct Half {
  uint16_t bits;
};

static inline uint32_t float_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float bits_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Rounds to nearest even; overflow gives infinity, a NaN keeps its high payload and becomes quiet.
static inline Half half_from_float(float value) {
  uint32_t bits = float_bits(value);
  uint32_t sign = bits >> 16 & 0x8000u;
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return {uint16_t(sign | 0x7e00u | (bits >> 13 & 0x3ffu))};
  if (bits >= 0x477ff000u) return {uint16_t(sign | 0x7c00u)};  // 65520 and above
  uint32_t mantissa, shift;
  if (bits >= 0x38800000u) {  // a normal half: rebias the exponent, drop 13 bits
    mantissa = bits - 0x38000000u;
    shift = 13;
  } else {  // a subnormal half counts in units of 2^-24
    if (bits < 0x33000000u) return {uint16_t(sign)};
    mantissa = (bits & 0x7fffffu) | 0x800000u;
    shift = 126 - (bits >> 23);
  }
  uint32_t kept = mantissa >> shift;
  uint32_t rest = mantissa & ((1u << shift) - 1), tie = 1u << (shift - 1);
  kept += rest > tie || (rest == tie && (kept & 1u));
  return {uint16_t(sign | kept)};
}

static inline float float_from_half(Half half) {
  uint32_t sign = uint32_t(half.bits & 0x8000u) << 16;
  uint32_t exponent = half.bits >> 10 & 0x1fu, mantissa = half.bits & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: exact in float32
    return bits_float(float_bits(float(mantissa) * 0x1p-24f) | sign);
  }
  if (exponent == 31) {
    return bits_float(sign | 0x7f800000u | mantissa << 13 | (mantissa ? 0x400000u : 0u));
  }
  return bits_float(sign | (exponent + 112) << 23 | mantissa << 13);
}

}  // namespace edge
