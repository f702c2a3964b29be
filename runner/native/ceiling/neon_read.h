// Reading memory with NEON, for all its instruction sets.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace edge {

static inline uint64_t neon_read(const uint8_t* data, size_t bytes) {
  uint8x16_t a = vdupq_n_u8(0), b = a, c = a, d = a;
  for (size_t i = 0; i < bytes; i += 128) {
    a = veorq_u8(a, veorq_u8(vld1q_u8(data + i), vld1q_u8(data + i + 16)));
    b = veorq_u8(b, veorq_u8(vld1q_u8(data + i + 32), vld1q_u8(data + i + 48)));
    c = veorq_u8(c, veorq_u8(vld1q_u8(data + i + 64), vld1q_u8(data + i + 80)));
    d = veorq_u8(d, veorq_u8(vld1q_u8(data + i + 96), vld1q_u8(data + i + 112)));
  }
  const uint64x2_t all = vreinterpretq_u64_u8(veorq_u8(veorq_u8(a, b), veorq_u8(c, d)));
  return vgetq_lane_u64(all, 0) ^ vgetq_lane_u64(all, 1);
}

}  // namespace edge
