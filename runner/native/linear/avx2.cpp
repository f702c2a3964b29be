// The AVX2 linear kernels: what they share, and which kernel runs which weight.
#include "linear/avx2_common.inl"

namespace edge {
namespace {

constexpr int32_t kFewRows = 8;  // codes are unpacked in registers up to here, beyond in memory

// Rows that one pass over a panel's weights serves: tiles of nearly equal height. Those of wide
// codes need registers beside the sums.
constexpr int32_t most_rows(Code code) { return code == Code::i8 || code == Code::nl4 ? 4 : 6; }

inline int32_t tile_rows(WeightFormat format, int32_t rows) {
  const int32_t most = most_rows(format.code);
  const int32_t tiles = (rows + most - 1) / most;
  return tiles ? (rows + tiles - 1) / tiles : 1;
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

}  // namespace
}  // namespace edge

// clang-format off: each part uses those before it
#include "linear/avx2_quantize.inl"
#include "linear/avx2_sums.inl"
#include "linear/avx2_groups.inl"
#include "linear/avx2_tiles.inl"
#include "linear/avx2_int8.inl"
#include "linear/avx2_float.inl"
// clang-format on

namespace edge {
namespace {

void prepare(const LinearArgs& args, Share mine) {
  const QuantizedRows rows = quantized_rows(args.weight, args.x.rows, args.scratch);
  const int32_t tile = tile_rows(args.weight.format, args.x.rows);
  const HalfStarts starts = starts_of(args.weight.format);
  for (int64_t i = mine.begin; i < mine.end; ++i) {
    quantize_row(args.x, i, tile, args.weight.format, starts, rows);
  }
}

void multiply(const LinearArgs& args, Worker worker) {
  const Share panels = share(panel_count(args.weight), 1, worker);
  if (is_quantized(args.weight.format)) {
    return visit_groups(args.weight.format, [&](auto groups) {
      using F = decltype(groups);
      if constexpr (F::kGroup == 0) {
        multiply_int8<F::kByGroup>(args, panels);
      } else {
        multiply_groups<F>(args, panels);
      }
    });
  }
  switch (args.weight.format.code) {
    case Code::f16:
      return multiply_float<Code::f16>(args, panels);
    case Code::bf16:
      return multiply_float<Code::bf16>(args, panels);
    default:
      return multiply_float<Code::f32>(args, panels);
  }
}

}  // namespace

const LinearKernels linear_avx2 = {quantized_rows_bytes, prepare, multiply, finishes_none,
                                   gather_rows};

}  // namespace edge
