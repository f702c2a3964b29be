#include <immintrin.h>

#include "ceiling/ceiling.h"

namespace edge {

namespace {

uint64_t read(const uint8_t* data, size_t bytes) {
  const auto* from = reinterpret_cast<const __m256i*>(data);
  __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
  for (size_t i = 0; i < bytes / 32; i += 8) {
    a = _mm256_xor_si256(a, _mm256_xor_si256(_mm256_load_si256(from + i), from[i + 1]));
    b = _mm256_xor_si256(b, _mm256_xor_si256(_mm256_load_si256(from + i + 2), from[i + 3]));
    c = _mm256_xor_si256(c, _mm256_xor_si256(_mm256_load_si256(from + i + 4), from[i + 5]));
    d = _mm256_xor_si256(d, _mm256_xor_si256(_mm256_load_si256(from + i + 6), from[i + 7]));
  }
  const __m256i all = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
  return static_cast<uint64_t>(_mm256_extract_epi64(all, 0) ^ _mm256_extract_epi64(all, 1) ^
                               _mm256_extract_epi64(all, 2) ^ _mm256_extract_epi64(all, 3));
}

// One asm block, since compilers put arrays of vectors into memory or hoist the products.
#define EDGE_STEP(n)               \
  "vpmaddubsw %1, %0, %%ymm15\n\t" \
  "vpaddw %%ymm15, %%ymm" #n ", %%ymm" #n "\n\t"

// Twelve chains of maddubs, added in 16 bits.
void multiply(int64_t rounds) {
  const __m256i weight = _mm256_set1_epi8(3), x = _mm256_set1_epi8(5);
  for (int64_t round = 0; round < rounds; ++round) {
    asm volatile(EDGE_STEP(2) EDGE_STEP(3) EDGE_STEP(4) EDGE_STEP(5) EDGE_STEP(6) EDGE_STEP(7)
                     EDGE_STEP(8) EDGE_STEP(9) EDGE_STEP(10) EDGE_STEP(11) EDGE_STEP(12)
                         EDGE_STEP(13)
                 :
                 : "x"(weight), "x"(x)
                 : "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                   "xmm12", "xmm13", "xmm15");
  }
}

#undef EDGE_STEP

}  // namespace

const CeilingKernels ceiling_avx2{read, multiply, 12 * 64};

}  // namespace edge
