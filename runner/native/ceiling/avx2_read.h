// Reading memory with AVX2, for all its instruction sets.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace edge {

// `Ahead`: memory is asked for ahead, past the caches behind the first, as one-row linears do.
template <bool Ahead>
static inline uint64_t avx2_read(const uint8_t* data, size_t bytes) {
  const auto* from = reinterpret_cast<const __m256i*>(data);
  __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
  for (size_t i = 0; i < bytes / 32; i += 8) {
    if constexpr (Ahead) {
      for (size_t line = 0; line < 8; line += 2) {
        _mm_prefetch(reinterpret_cast<const char*>(from + i + line) + 8192, _MM_HINT_NTA);
      }
    }
    a = _mm256_xor_si256(a, _mm256_xor_si256(_mm256_load_si256(from + i), from[i + 1]));
    b = _mm256_xor_si256(b, _mm256_xor_si256(_mm256_load_si256(from + i + 2), from[i + 3]));
    c = _mm256_xor_si256(c, _mm256_xor_si256(_mm256_load_si256(from + i + 4), from[i + 5]));
    d = _mm256_xor_si256(d, _mm256_xor_si256(_mm256_load_si256(from + i + 6), from[i + 7]));
  }
  const __m256i all = _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d));
  return static_cast<uint64_t>(_mm256_extract_epi64(all, 0) ^ _mm256_extract_epi64(all, 1) ^
                               _mm256_extract_epi64(all, 2) ^ _mm256_extract_epi64(all, 3));
}

}  // namespace edge
