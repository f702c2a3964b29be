// Activations to int8, laid out in the tiles that the kernels broadcast from.

namespace edge {
namespace {

struct Extremes {
  __m256 low, high;
  __m256i magnitude;  // largest |x| as an integer: infinities and NaN are above every finite float
};

inline void extend(Extremes& e, __m256 x) {
  e.low = _mm256_min_ps(e.low, x);
  e.high = _mm256_max_ps(e.high, x);
  const __m256i bits = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7FFFFFFF));
  e.magnitude = _mm256_max_epi32(e.magnitude, bits);
}

inline float extreme(__m256 values, bool highest) {
  alignas(32) float lanes[8];
  _mm256_store_ps(lanes, values);
  return highest ? *std::max_element(lanes, lanes + 8) : *std::min_element(lanes, lanes + 8);
}

inline RowScale measure_row(const float* x, int32_t k) {
  Extremes even = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_si256()};
  Extremes odd = even;
  int32_t i = 0;
  for (; i + 16 <= k; i += 16) {
    extend(even, _mm256_loadu_ps(x + i));
    extend(odd, _mm256_loadu_ps(x + i + 8));
  }
  for (; i < k; i += 8) extend(even, _mm256_maskload_ps(x + i, tail_mask(k - i)));
  const __m256i infinity = _mm256_set1_epi32(0x7F800000);
  const __m256i largest = _mm256_max_epi32(even.magnitude, odd.magnitude);
  const bool finite = _mm256_movemask_epi8(_mm256_cmpgt_epi32(infinity, largest)) == -1;
  return row_scale(extreme(_mm256_min_ps(even.low, odd.low), false),
                   extreme(_mm256_max_ps(even.high, odd.high), true), finite);
}

// How the next 8 kRun columns of a row become int8; what is not finite has the inverse 0.
struct Runs {
  alignas(32) float scale[8], inverse[8];
};

// The bits of magnitudes of kRun columns, of which `count` are there: one lane has the largest.
inline __m256i magnitudes(const float* x, int32_t count) {
  __m256i largest = _mm256_setzero_si256();
#pragma GCC unroll 4
  for (int32_t j = 0; j < kRun; j += 8) {
    const __m256 values = count >= kRun ? _mm256_loadu_ps(x + j)
                          : count > j   ? _mm256_maskload_ps(x + j, tail_mask(count - j))
                                        : _mm256_setzero_ps();
    const __m256i bits =
        _mm256_and_si256(_mm256_castps_si256(values), _mm256_set1_epi32(0x7FFFFFFF));
    largest = _mm256_max_epi32(largest, bits);
  }
  return largest;
}

// Of the next `count` columns.
inline Runs measure_runs(const float* x, int32_t count) {
  __m256i all[8];
#pragma GCC unroll 8
  for (int32_t j = 0; j < 8; ++j) {
    all[j] = count > j * kRun ? magnitudes(x + j * kRun, count - j * kRun) : _mm256_setzero_si256();
  }
#pragma GCC unroll 4
  for (int j = 0; j < 8;
       j += 2) {  // lanes of pairs of runs side by side, then of four, then of all
    all[j] = _mm256_max_epi32(_mm256_unpacklo_epi32(all[j], all[j + 1]),
                              _mm256_unpackhi_epi32(all[j], all[j + 1]));
  }
#pragma GCC unroll 2
  for (int j = 0; j < 8; j += 4) {
    all[j] = _mm256_max_epi32(_mm256_unpacklo_epi64(all[j], all[j + 2]),
                              _mm256_unpackhi_epi64(all[j], all[j + 2]));
  }
  const __m256i bits = _mm256_max_epi32(_mm256_permute2x128_si256(all[0], all[4], 0x20),
                                        _mm256_permute2x128_si256(all[0], all[4], 0x31));
  const __m256 finite =
      _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(0x7F800000), bits));
  const __m256 smallest = _mm256_set1_ps(std::numeric_limits<float>::min());
  const __m256 scale =
      _mm256_max_ps(_mm256_div_ps(_mm256_castsi256_ps(bits), _mm256_set1_ps(127.0f)), smallest);
  const __m256 nan = _mm256_set1_ps(std::numeric_limits<float>::quiet_NaN());
  Runs runs;
  _mm256_store_ps(runs.scale, _mm256_blendv_ps(nan, scale, finite));
  _mm256_store_ps(runs.inverse, _mm256_and_ps(_mm256_div_ps(_mm256_set1_ps(1.0f), scale), finite));
  return runs;
}

// 32 values to int8; values past `count` are not read and become 0.
inline __m256i quantize_block(const float* x, int32_t count, __m256 inverse, __m256i zero) {
  __m256i words[4];
#pragma GCC unroll 4
  for (int32_t j = 0; j < 4; ++j) {
    const __m256 values = count >= 32     ? _mm256_loadu_ps(x + 8 * j)
                          : count > 8 * j ? _mm256_maskload_ps(x + 8 * j, tail_mask(count - 8 * j))
                                          : _mm256_setzero_ps();
    words[j] = _mm256_cvtps_epi32(_mm256_mul_ps(values, inverse));
    if (count < 32) {  // becomes -zero + zero = 0
      words[j] = _mm256_blendv_epi8(_mm256_sub_epi32(_mm256_setzero_si256(), zero), words[j],
                                    tail_mask(count - 8 * j));
    }
    words[j] = _mm256_add_epi32(words[j], zero);
  }
  const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(words[0], words[1]),
                                           _mm256_packs_epi32(words[2], words[3]));
  return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

inline int32_t sum_bytes(__m256i bytes) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
  const __m256i eight = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0x4E));
  sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0xB1));
  return _mm_cvtsi128_si32(sums);
}

// Row `i` of x into its tile of `tile` rows or what is left, for weights of `format`, in pieces of
// a cache line. `Starts` says from what words a kernel starts its integer sums over each `span` k
// (0: none wanted), given the sums of x over them:
//   __m256i add(sums, bytes)   adds 32 of them
//   int32_t word(sums)
template <class Starts>
void quantize_row(const Matrix& x, int64_t i, int32_t tile, WeightFormat format,
                  const Starts& starts, const QuantizedRows& rows) {
  const int64_t first = i / tile * tile, span = starts.span;
  const int64_t height = std::min<int64_t>(tile, x.rows - first);
  const TileRow at = {first, height, i};
  int8_t* const q = rows.q + first * rows.strides.q + (i - first) * kLineBytes;
  int32_t* const words = rows.starts + first * rows.strides.starts + (i - first) * kLineWords;
  const float* data = x.row(i);
  const bool grouped = by_group(format);
  const RowScale row = grouped ? RowScale{1.0f, 1.0f, 0, true} : measure_row(data, x.cols);
  rows.scale[i] = row.scale;
  rows.minus_zero[i] = static_cast<float>(-row.zero);

  const int32_t summed = summed_columns(format);
  const __m256i zero = _mm256_set1_epi32(row.zero);
  float inverse = row.inverse;
  Runs runs;
  const auto start = [&](int64_t number, __m256i sums) {
    words[tile_offset<kLineWords>(number, height)] = starts.word(sums);
  };
  __m256i sums = _mm256_setzero_si256();
  int64_t number = 0;  // of the span
  int32_t group_sum = 0;
  for (int64_t k = 0; k < rows.depth; k += kBlock) {
    const int32_t count = static_cast<int32_t>(std::min<int64_t>(kBlock, x.cols - k));
    if (grouped) {
      const int64_t run = k / kRun % 8;
      if (run == 0) {
        runs =
            measure_runs(data + k, static_cast<int32_t>(std::min<int64_t>(8 * kRun, x.cols - k)));
      }
      inverse = runs.inverse[run];
      store_run<kLineWords>(rows, at, k, runs.scale[run]);
    }
    const __m256i bytes = inverse != 0.0f
                              ? quantize_block(data + k, count, _mm256_set1_ps(inverse), zero)
                              : _mm256_setzero_si256();
    _mm256_store_si256(reinterpret_cast<__m256i*>(q + tile_offset<kLineBytes>(k, height)), bytes);
    if (format.minimum != MinimumType::none) {
      group_sum += sum_bytes(bytes);
      if ((k + kBlock) % summed == 0) {
        store_sum<kLineWords>(rows, format, at, k / summed, group_sum);
        group_sum = 0;
      }
    }
    if (!span) continue;
    if (span < kBlock) {  // half of it
      const __m256i lower = _mm256_set_m128i(_mm_setzero_si128(), _mm256_castsi256_si128(bytes));
      start(number++, starts.add(sums, lower));
      start(number++, starts.add(sums, _mm256_sub_epi8(bytes, lower)));
      continue;
    }
    sums = starts.add(sums, bytes);
    if (k + kBlock == (number + 1) * span) {
      start(number++, sums);
      sums = _mm256_setzero_si256();
    }
  }
}

// Element `i` of the first row of a tile of M; that of row m lies m pieces behind it.
template <int M>
inline const int8_t* tile_bytes(const int8_t* tile, int64_t i) {
  return tile + tile_offset<kLineBytes>(i, M);
}
template <int M, class Word>
inline const Word* tile_words(const Word* tile, int64_t i) {
  return tile + tile_offset<kLineWords>(i, M);
}

}  // namespace
}  // namespace edge
