#include "ceiling/ceiling.h"

namespace edge {

namespace {

uint64_t read(const uint8_t* data, size_t bytes) {
  const auto* words = reinterpret_cast<const uint64_t*>(data);
  uint64_t sums[4] = {0, 0, 0, 0};
  for (size_t i = 0; i < bytes / 8; i += 4) {
    for (size_t j = 0; j < 4; ++j) sums[j] ^= words[i + j];
  }
  return sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
}

constexpr int32_t kTerms = 1024;

// What the compiler makes of a dot product; it must not see that every round is the same.
void multiply(int64_t rounds) {
  alignas(64) int8_t x[kTerms], y[kTerms];
  for (int32_t i = 0; i < kTerms; ++i) x[i] = y[i] = static_cast<int8_t>(i);
  uint32_t sum = 0;  // which may wrap
  for (int64_t round = 0; round < rounds; ++round) {
    asm volatile("" : : "r"(x), "r"(y) : "memory");
    for (int32_t i = 0; i < kTerms; ++i) sum += static_cast<uint32_t>(x[i] * y[i]);
    asm volatile("" : "+r"(sum));
  }
}

}  // namespace

const CeilingKernels ceiling_scalar{read, nullptr, multiply, 2 * kTerms};

}  // namespace edge
