// The AVX2 linear kernels: what they share, and which kernel runs which weight.
#include <immintrin.h>

#include <algorithm>

#include "linear/packed.h"

// A tile kernel fills the register file, so it is compiled alone: inlined into its caller, its sums
// would be spilled.
#define EDGE_TILE_KERNEL __attribute__((noinline))

namespace edge {
namespace {

// Lanes below `count` (at most 8) are loaded, the rest are zero and not touched in memory.
inline __m256i tail_mask(int32_t count) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes);
}

// Four consecutive k of one row of activations, in every lane.
inline __m256i broadcast_word(const int8_t* q) {
  int32_t word;
  std::memcpy(&word, q, 4);
  return _mm256_set1_epi32(word);
}

inline __m256i load_bytes(const void* data) {
  return _mm256_load_si256(static_cast<const __m256i*>(data));
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

// clang-format off: each part uses those before it
#include "linear/avx2_quantize.inl"
#include "linear/avx2_int4.inl"
#include "linear/avx2_int8.inl"
#include "linear/avx2_float.inl"
// clang-format on

namespace edge {
namespace {

void prepare(const LinearArgs& args, Share mine) {
  const QuantizedRows rows = quantized_rows(args.weight, args.x.rows, args.scratch);
  const int32_t tile = tile_rows(args.weight.format, args.x.rows);
  const int32_t span = start_span(args.weight.format);
  for (int64_t i = mine.begin; i < mine.end; ++i) {
    quantize_row(args.x, i, tile, span, rows);
  }
}

void multiply(const LinearArgs& args, Worker worker) {
  const Share panels = share(panel_count(args.weight), 1, worker);
  switch (args.weight.format) {
    case WeightFormat::i4g32:
      return multiply_int4<32>(args, panels);
    case WeightFormat::i4g64:
      return multiply_int4<64>(args, panels);
    case WeightFormat::i4g128:
      return multiply_int4<128>(args, panels);
    case WeightFormat::i8:
      return multiply_int8(args, panels);
    case WeightFormat::f16:
      return multiply_float<WeightFormat::f16>(args, panels);
    case WeightFormat::bf16:
      return multiply_float<WeightFormat::bf16>(args, panels);
    default:
      return multiply_float<WeightFormat::f32>(args, panels);
  }
}

}  // namespace

const LinearKernels linear_avx2 = {quantized_rows_bytes, prepare, multiply, gather_rows};

}  // namespace edge
