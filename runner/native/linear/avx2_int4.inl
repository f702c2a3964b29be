// int4 weights. One 32-bit lane is one output row; vpmaddubsw multiplies four unsigned nibbles
// (q + 8) with four consecutive k of x and leaves two 16-bit sums, which are added up, wrapping,
// over a span of k. Each sum starts from -8 * sum(x), so what it ends at is sum(q x) modulo 2^16,
// and the wraps on the way cancel as long as that fits 16 bits. A span of 32 k adds 16 products to
// a half: at most 16 * 8 * 128 = 2^14. A span of 64 adds 32, within [-32 * 8 * 127, 32 * 8 * 128] =
// [-32512, 32768]: one too many, so those start 128 lower and 2 * 128 comes back after widening.

namespace edge {
namespace {

constexpr int32_t kSpanOffset = 128;

// The words from which the 16-bit sums start: -8 times the sum of x that each half will meet, which
// turns the stored nibbles q + 8 back into q, minus an offset that keeps spans of 64 within 16
// bits.
struct HalfStarts {
  int32_t span;  // k that are summed in 16 bits before they are widened; 0: no start words

  static __m256i add(__m256i sums, __m256i bytes) {
    return _mm256_add_epi16(sums, _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes));
  }
  int32_t word(__m256i pairs) const {
    __m128i sums = _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    sums = _mm_add_epi16(sums, _mm_shuffle_epi32(sums, 0x4E));
    sums = _mm_add_epi16(sums, _mm_shuffle_epi32(sums, 0xB1));
    const __m128i offset = _mm_set1_epi16(span > kBlock ? -kSpanOffset : 0);
    return _mm_cvtsi128_si32(_mm_sub_epi16(offset, _mm_slli_epi16(sums, 3)));
  }
};

inline HalfStarts starts_of(WeightFormat format) { return {std::min(format.group, 64)}; }

// sums += w * x in 16-bit halves. Pinned, because gcc otherwise moves all products of a tile ahead
// of all sums and spills them.
inline void multiply_add(__m256i& sums, __m256i w, __m256i x) {
  __m256i product;
  asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(sums), "=x"(product) : "x"(w), "x"(x));
}

// sums[m][h]: 16-bit sums of token m for rows 8h .. 8h + 7 over `Blocks` blocks of packed nibbles.
template <int M, int Blocks>
inline void sum_packed(const uint8_t* w, const int8_t* x, __m256i (&sums)[M][2]) {
  const __m256i mask = _mm256_set1_epi8(15);
#pragma GCC unroll 8
  for (int c = 0; c < 4 * Blocks; ++c) {
    const __m256i pairs0 = load_bytes(w + 64 * c), pairs1 = load_bytes(w + 64 * c + 32);
    const __m256i low0 = _mm256_and_si256(pairs0, mask), low1 = _mm256_and_si256(pairs1, mask);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const __m256i word = broadcast_word(x + (2 * c * M + m) * 4);
      multiply_add(sums[m][0], low0, word);
      multiply_add(sums[m][1], low1, word);
    }
    const __m256i high0 = _mm256_and_si256(_mm256_srli_epi16(pairs0, 4), mask);
    const __m256i high1 = _mm256_and_si256(_mm256_srli_epi16(pairs1, 4), mask);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const __m256i word = broadcast_word(x + ((2 * c + 1) * M + m) * 4);
      multiply_add(sums[m][0], high0, word);
      multiply_add(sums[m][1], high1, word);
    }
  }
}

// The same over bytes [k / 4][16 rows][4].
template <int M, int Blocks>
inline void sum_bytes(const uint8_t* w, const int8_t* x, __m256i (&sums)[M][2]) {
#pragma GCC unroll 16
  for (int step = 0; step < 8 * Blocks; ++step) {
    const __m256i w0 = load_bytes(w + 64 * step), w1 = load_bytes(w + 64 * step + 32);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const __m256i word = broadcast_word(x + (step * M + m) * 4);
      multiply_add(sums[m][0], w0, word);
      multiply_add(sums[m][1], w1, word);
    }
  }
}

// Where a tile kernel reads: `x` and `starts` of the tile, weights from the same k on.
struct Int4Operands {
  const uint8_t* w;
  const int8_t* x;
  const int32_t* starts;
  int64_t groups;
};

// Adds the groups to totals[m][16]. `Packed`: weights as in the file, a group being nibbles then 16
// fp16 scales; else as unpack_groups leaves them, bytes then 16 float scales.
template <int M, int G, bool Packed>
EDGE_TILE_KERNEL void add_groups(Int4Operands in, float* totals) {
  constexpr int kSpan = G < 64 ? G : 64;
  constexpr int kSpans = G / kSpan;
  constexpr int kSpanBlocks = kSpan / kBlock;
  constexpr int kSpanBytes = Packed ? kSpan * 8 : kSpan * kLanes;
  const __m256i ones = _mm256_set1_epi16(1);
  // One row keeps its totals in registers; more rows need the registers for their sums.
  __m256 own[M][2];
  if (M == 1) {
    own[0][0] = _mm256_load_ps(totals);
    own[0][1] = _mm256_load_ps(totals + 8);
  }
  for (int64_t g = 0; g < in.groups; ++g) {
    __m256i dots[M][2];
#pragma GCC unroll 2
    for (int span = 0; span < kSpans; ++span) {
      __m256i sums[M][2];
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) sums[m][0] = sums[m][1] = _mm256_set1_epi32(in.starts[m]);
      if (Packed) {
        for (int line = 0; line < kSpanBytes; line += 64) fetch_ahead<M>(in.w + line);
        sum_packed<M, kSpanBlocks>(in.w, in.x, sums);
      } else {
        sum_bytes<M, kSpanBlocks>(in.w, in.x, sums);
      }
      in.w += kSpanBytes;
      in.x += kSpan * M;
      in.starts += M;
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        for (int h = 0; h < 2; ++h) {
          const __m256i wide = _mm256_madd_epi16(sums[m][h], ones);
          dots[m][h] = span ? _mm256_add_epi32(dots[m][h], wide) : wide;
        }
      }
    }
    __m256 scales[2];
    if (Packed) {
      const __m128i* half = reinterpret_cast<const __m128i*>(in.w);
      scales[0] = _mm256_cvtph_ps(_mm_load_si128(half));
      scales[1] = _mm256_cvtph_ps(_mm_load_si128(half + 1));
      in.w += kInt4ScaleBytes;
    } else {
      scales[0] = _mm256_load_ps(reinterpret_cast<const float*>(in.w));
      scales[1] = _mm256_load_ps(reinterpret_cast<const float*>(in.w) + 8);
      in.w += kVectorBytes;
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      for (int h = 0; h < 2; ++h) {
        __m256i dot = dots[m][h];
        if (kSpan > kBlock) {
          dot = _mm256_add_epi32(dot, _mm256_set1_epi32(2 * kSpanOffset * kSpans));
        }
        const __m256 value = _mm256_cvtepi32_ps(dot);
        if (M == 1) {
          own[m][h] = _mm256_fmadd_ps(scales[h], value, own[m][h]);
        } else {
          float* total = totals + m * kLanes + 8 * h;
          _mm256_store_ps(total, _mm256_fmadd_ps(scales[h], value, _mm256_load_ps(total)));
        }
      }
    }
  }
  if (M == 1) {
    _mm256_store_ps(totals, own[0][0]);
    _mm256_store_ps(totals + 8, own[0][1]);
  }
}

template <int G, bool Packed>
void add_tile(int32_t height, const Int4Operands& in, float* totals) {
  switch (height) {
    case 1:
      return add_groups<1, G, Packed>(in, totals);
    case 2:
      return add_groups<2, G, Packed>(in, totals);
    case 3:
      return add_groups<3, G, Packed>(in, totals);
    case 4:
      return add_groups<4, G, Packed>(in, totals);
    case 5:
      return add_groups<5, G, Packed>(in, totals);
    default:
      return add_groups<6, G, Packed>(in, totals);
  }
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

// Nibbles to bytes, scales to float: once for all rows of x.
template <int G>
void unpack_groups(const uint8_t* packed, int64_t groups, uint8_t* out) {
  const __m256i mask = _mm256_set1_epi8(15);
  for (int64_t g = 0; g < groups; ++g) {
    for (int c = 0; c < G / 8; ++c, packed += 64, out += 128) {
      for (int h = 0; h < 2; ++h) {
        const __m256i pairs = load_bytes(packed + 32 * h);
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(pairs, 4), mask);
        _mm256_store_si256(reinterpret_cast<__m256i*>(out + 32 * h), _mm256_and_si256(pairs, mask));
        _mm256_store_si256(reinterpret_cast<__m256i*>(out + 64 + 32 * h), high);
      }
    }
    for (int h = 0; h < 2; ++h, packed += 16, out += 32) {
      const __m128i half = _mm_load_si128(reinterpret_cast<const __m128i*>(packed));
      _mm256_store_ps(reinterpret_cast<float*>(out), _mm256_cvtph_ps(half));
    }
  }
}

constexpr int64_t kUnpackedDepth = 2048;  // k of a panel unpacked at once: 32 KiB and the scales

template <int G>
void multiply_int4(const LinearArgs& args, Share panels) {
  const QuantizedRows rows = quantized_rows(args.weight, args.x.rows, args.scratch);
  const int32_t tile = tile_rows(args.weight.format, args.x.rows);
  const bool packed = args.x.rows <= kFewRows;
  const int64_t span = starts_of(args.weight.format).span;
  const int64_t parts = packed ? 1 : (rows.depth + kUnpackedDepth - 1) / kUnpackedDepth;
  const int64_t part = round_up((rows.depth + parts - 1) / parts, G);
  alignas(64) uint8_t unpacked[kUnpackedDepth / 32 * (32 * kLanes + kVectorBytes)];
  alignas(64) float totals[6 * kLanes];

  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    const uint8_t* data = panel_data(args.weight, panel);
    const float* const constants = row_constants(args.weight, panel);
    for (int64_t begin = 0; begin < rows.depth; begin += part) {
      const int64_t end = std::min(begin + part, rows.depth);
      const int64_t groups = (end - begin) / G;
      if (!packed) unpack_groups<G>(data, groups, unpacked);
      for (int32_t first = 0; first < args.x.rows; first += tile) {
        const int32_t height = std::min(tile, args.x.rows - first);
        const int8_t* x = rows.q + first * rows.depth + begin * height;
        const int32_t* starts = rows.starts + first * (rows.depth / span) + begin / span * height;
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
        if (packed) {
          add_tile<G, true>(height, {data, x, starts, groups}, totals);
        } else {
          add_tile<G, false>(height, {unpacked, x, starts, groups}, totals);
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
      data += groups * (G / kBlock * kInt4BlockBytes + kInt4ScaleBytes);
    }
  }
}

}  // namespace
}  // namespace edge
