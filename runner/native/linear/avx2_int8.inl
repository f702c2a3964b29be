// int8 weights, one scale a row. vpmaddubsw takes one unsigned factor: |x| with the sign of x moved
// to the weight, exact because weights stop at -127 (x may be -128). A pair sums to at most 2 * 128
// * 127 = 32512, within 16 bits, and is widened at once.

namespace edge {
namespace {

// totals[M][16], which the scales of the weights are still to multiply. `x` and `runs` are those of
// the tile.
template <bool kByGroup, int M>
EDGE_TILE_KERNEL void total_int8(const uint8_t* w, const int8_t* x, const float* runs,
                                 int64_t depth, float* totals) {
  const __m256i ones = _mm256_set1_epi16(1);
  const int64_t columns = kByGroup ? kRun : depth;
  std::fill(totals, totals + M * kLanes, 0.0f);
  for (int64_t begin = 0; begin < depth; begin += columns) {
    __m256i sums[M][2];
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) sums[m][0] = sums[m][1] = _mm256_setzero_si256();
    for (int64_t k = begin; k < begin + columns; k += kBlock) {
      const int8_t* const words = tile_bytes<M>(x, k);
      for (int32_t i = 0; i < kBlock; i += 4, w += kInt8WordBytes) {
        fetch_ahead<M>(w);
        const __m256i w0 = load_bytes(w), w1 = load_bytes(w + 32);
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) {
          const __m256i word = broadcast_word(words + m * kLineBytes + i);
          const __m256i magnitude = _mm256_abs_epi8(word);
          const __m256i pair0 = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(w0, word));
          const __m256i pair1 = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(w1, word));
          sums[m][0] = _mm256_add_epi32(sums[m][0], _mm256_madd_epi16(pair0, ones));
          sums[m][1] = _mm256_add_epi32(sums[m][1], _mm256_madd_epi16(pair1, ones));
        }
      }
    }
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      for (int h = 0; h < 2; ++h) {
        float* to = totals + m * kLanes + 8 * h;
        __m256 total = _mm256_cvtepi32_ps(sums[m][h]);
        if (kByGroup) {
          const float* const run = tile_words<M>(runs, begin / kRun) + m * kLineWords;
          total = _mm256_fmadd_ps(_mm256_broadcast_ss(run), total, _mm256_load_ps(to));
        }
        _mm256_store_ps(to, total);
      }
    }
  }
}

template <bool kByGroup>
void total_tile(int32_t height, const uint8_t* w, const int8_t* x, const float* runs, int64_t depth,
                float* totals) {
  switch (height) {
    case 1:
      return total_int8<kByGroup, 1>(w, x, runs, depth, totals);
    case 2:
      return total_int8<kByGroup, 2>(w, x, runs, depth, totals);
    case 3:
      return total_int8<kByGroup, 3>(w, x, runs, depth, totals);
    default:
      return total_int8<kByGroup, 4>(w, x, runs, depth, totals);
  }
}

template <bool kByGroup>
void multiply_int8(const LinearArgs& args, Share panels) {
  const QuantizedRows rows = quantized_rows(args.weight, args.x.rows, args.scratch);
  const int32_t tile = tile_rows(args.weight.format, args.x.rows);
  alignas(64) float sums[4 * kLanes];
  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    const uint8_t* data = panel_data(args.weight, panel);
    const float* scales = reinterpret_cast<const float*>(data + rows.depth / 4 * kInt8WordBytes);
    const float* const constants = row_constants(args.weight, panel);
    for (int32_t first = 0; first < args.x.rows; first += tile) {
      const int32_t height = std::min(tile, args.x.rows - first);
      total_tile<kByGroup>(height, data, rows.q + first * rows.strides.q,
                           rows.runs + first * rows.strides.runs, rows.depth, sums);
      for (int32_t m = 0; m < height; ++m) {
        __m256 totals[2];
        for (int h = 0; h < 2; ++h) {
          totals[h] =
              _mm256_fmadd_ps(_mm256_load_ps(scales + 8 * h),
                              _mm256_load_ps(sums + m * kLanes + 8 * h), _mm256_setzero_ps());
        }
        finish_row(args, rows, panel, constants, first + m, totals[0], totals[1]);
      }
    }
  }
}

}  // namespace
}  // namespace edge
