// Weights in groups: tiles of rows over panels.

namespace edge {
namespace {

template <class F, bool Packed, int M = 1>
void add_tile(int32_t height, const GroupOperands& in, float* totals) {
  if constexpr (M < most_rows(F::kCode)) {
    if (height > M) return add_tile<F, Packed, M + 1>(height, in, totals);
  }
  add_groups<F, M, Packed>(in, totals);
}

// y = scale * (total - zero * constant) + bias for the 16 outputs of a panel.
inline void finish_row(const LinearArgs& args, const QuantizedRows& rows, int64_t panel,
                       const float* constants, int64_t row, __m256 total0, __m256 total1) {
  const __m256 minus_zero = _mm256_set1_ps(rows.minus_zero[row]);
  const __m256 scale = _mm256_set1_ps(rows.scale[row]);
  total0 = _mm256_mul_ps(scale, _mm256_fmadd_ps(minus_zero, _mm256_load_ps(constants), total0));
  total1 = _mm256_mul_ps(scale, _mm256_fmadd_ps(minus_zero, _mm256_load_ps(constants + 8), total1));
  if (args.bias) {
    const Bias bias = load_bias(args.bias, panel * kLanes, args.weight.n);
    total0 = _mm256_add_ps(total0, bias.low);
    total1 = _mm256_add_ps(total1, bias.high);
  }
  float* y = args.y.row(row) + panel * kLanes;
  _mm256_storeu_ps(y, total0);
  _mm256_storeu_ps(y + 8, total1);
}

constexpr int64_t kUnpackedDepth = 2048;  // k of a panel unpacked at once: 32 KiB and the numbers

template <class F>
void multiply_groups(const LinearArgs& args, Share panels) {
  const QuantizedRows rows = quantized_rows(args.weight, args.x.rows, args.scratch);
  const int32_t tile = tile_rows(args.weight.format, args.x.rows);
  const bool packed = args.x.rows <= kFewRows;
  constexpr int32_t G = F::kGroup;
  const int64_t parts = packed ? 1 : (rows.depth + kUnpackedDepth - 1) / kUnpackedDepth;
  const int64_t part = round_up((rows.depth + parts - 1) / parts, G * F::kFrames.together);
  alignas(64) uint8_t unpacked[unpacked_bytes<F>(kUnpackedDepth / G)];
  alignas(64) float totals[6 * kLanes];

  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    const uint8_t* data = panel_data(args.weight, panel);
    const float* const constants = row_constants(args.weight, panel);
    for (int64_t begin = 0; begin < rows.depth; begin += part) {
      const int64_t end = std::min(begin + part, rows.depth);
      const int64_t groups = (end - begin) / G;
      if (!packed) unpack_groups<F>(data, groups, unpacked);
      const uint8_t* next = data + F::kFrames.bytes(groups);
      const uint8_t* const behind = next + F::kFrames.bytes(groups);
      const int64_t fetched = groups * kLineBytes;  // with a line for each
      const int64_t wanted = F::kFrames.bytes(groups) * tile / args.x.rows;
      const int64_t fetches = (wanted + fetched - 1) / fetched;
      for (int32_t first = 0; first < args.x.rows; first += tile) {
        const int32_t height = std::min(tile, args.x.rows - first);
        for (int32_t m = 0; m < height; ++m) {
          const float* y = args.y.row(first + m) + panel * kLanes;
          for (int h = 0; h < kLanes; h += 8) {
            _mm256_store_ps(totals + m * kLanes + h,
                            begin ? _mm256_loadu_ps(y + h) : _mm256_setzero_ps());
          }
        }
        // Rows of y lie too far apart for the processor to see them coming.
        for (int32_t m = 0; m < height; ++m) {
          __builtin_prefetch(args.y.row(first + m) + panel * kLanes, 1);
        }
        const GroupOperands in = {packed ? data : unpacked,
                                  rows.q + first * rows.strides.q,
                                  rows.starts + first * rows.strides.starts,
                                  rows.sums + first * rows.strides.sums,
                                  rows.runs + first * rows.strides.runs,
                                  begin,
                                  end,
                                  next,
                                  next < behind ? static_cast<int32_t>(fetches) : 0};
        next += fetches * fetched;
        if (packed) {
          add_tile<F, true>(height, in, totals);
        } else {
          add_tile<F, false>(height, in, totals);
        }
        for (int32_t m = 0; m < height; ++m) {
          const __m256 total0 = _mm256_load_ps(totals + m * kLanes);
          const __m256 total1 = _mm256_load_ps(totals + m * kLanes + 8);
          if (end == rows.depth) {
            finish_row(args, rows, panel, constants, first + m, total0, total1);
          } else {
            float* y = args.y.row(first + m) + panel * kLanes;
            _mm256_storeu_ps(y, total0);
            _mm256_storeu_ps(y + 8, total1);
          }
        }
      }
      data += F::kFrames.bytes(groups);
    }
  }
}

}  // namespace
}  // namespace edge
