// The sampler's random numbers, logarithm and power: plain arithmetic that every build computes
// alike.
#pragma once

#include <cstdint>
#include <cstring>

namespace edge {

// Two doubles in [0, 1) with 53 random bits each, a pure function of (seed, counter): Philox4x32-10
// (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), key = seed, counter =
// (counter, 0).
struct Randoms {
  double draw, coin;
};

static inline Randoms randoms(uint64_t seed, uint64_t counter) {
  uint32_t key[2] = {uint32_t(seed), uint32_t(seed >> 32)};
  uint32_t state[4] = {uint32_t(counter), uint32_t(counter >> 32), 0, 0};
  for (int round = 0; round < 10; ++round) {
    uint64_t first = uint64_t(0xd2511f53u) * state[0], second = uint64_t(0xcd9e8d57u) * state[2];
    state[0] = uint32_t(second >> 32) ^ state[1] ^ key[0];
    state[1] = uint32_t(second);
    state[2] = uint32_t(first >> 32) ^ state[3] ^ key[1];
    state[3] = uint32_t(first);
    key[0] += 0x9e3779b9u;
    key[1] += 0xbb67ae85u;
  }
  auto unit = [](uint32_t high, uint32_t low) {
    return double((uint64_t(high) << 32 | low) >> 11) * 0x1p-53;
  };
  return {unit(state[0], state[1]), unit(state[2], state[3])};
}

// Natural logarithm of a positive normal double, to about 1e-15: 2 artanh((m - 1) / (m + 1)) + e
// log 2. Not the C library's, which differs between systems.
static inline double natural_log(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  int exponent = int(bits >> 52) - 1023;
  bits = (bits & 0xfffffffffffffull) | 0x3ff0000000000000ull;
  double m;
  std::memcpy(&m, &bits, sizeof m);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  double s = (m - 1.0) / (m + 1.0), square = s * s, series = 0.0;
  for (int k = 23; k >= 1; k -= 2) series = series * square + 1.0 / k;
  return 2.0 * s * series + exponent * 0.6931471805599453;
}

// base^exponent by squaring; may become infinite.
static inline double power(double base, int32_t exponent) {
  double result = 1.0;
  for (; exponent > 0; exponent >>= 1) {
    if (exponent & 1) result *= base;
    base *= base;
  }
  return result;
}

}  // namespace edge
