// What the linear kernels of x86-64 share.
#include <immintrin.h>

#include <algorithm>

#include "linear/packed.h"

// A tile kernel fills the register file, so it is compiled alone: inlined into its caller, its sums
// would be spilled.
#define EDGE_TILE_KERNEL __attribute__((noinline))

namespace edge {
namespace {

// Bytes that weights are asked for in advance: on Zen 5 the best of 1 to 16 KiB for int4 from
// memory, with small pages and with huge ones.
constexpr int64_t kAhead = 8192;

// Asks for the weights that `M` rows of x will meet soon. One row meets each weight once: those are
// kept out of the caches behind the first, because what they would push out of them, one into the
// other, takes its share of the memory's bandwidth.
template <int M>
inline void fetch_ahead(const uint8_t* w) {
  __builtin_prefetch(w + kAhead, 0, M == 1 ? 0 : 3);
}

// Bits of each byte, moved up by Left (or down, if it is negative); Mask is where they then are.
template <int Left, int Mask>
inline __m256i field(__m256i bytes) {
  const __m256i moved = Left >= 0 ? _mm256_slli_epi16(bytes, Left >= 0 ? Left : 0)
                                  : _mm256_srli_epi16(bytes, Left >= 0 ? 0 : -Left);
  return _mm256_and_si256(moved, _mm256_set1_epi8(Mask));
}

// The bits of the floats whose exponents are bytes.
inline __m256i exponent_bits(__m256i bytes) {
  return _mm256_max_epi32(_mm256_slli_epi32(bytes, 23), _mm256_set1_epi32(kSmallestExponent));
}

// Lanes below `count` (at most 8) are loaded, the rest are zero and not touched in memory.
inline __m256i tail_mask(int32_t count) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes);
}

// The bias of 16 outputs from `first`; nothing is read past `n`.
struct Bias {
  __m256 low, high;
};
inline Bias load_bias(const float* bias, int64_t first, int32_t n) {
  const int32_t lanes = static_cast<int32_t>(std::min<int64_t>(kLanes, n - first));
  return {
      _mm256_maskload_ps(bias + first, tail_mask(lanes)),
      lanes > 8 ? _mm256_maskload_ps(bias + first + 8, tail_mask(lanes - 8)) : _mm256_setzero_ps()};
}

}  // namespace
}  // namespace edge
