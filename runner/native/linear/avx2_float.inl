// Float weights: y = fma over k ascending, 16 outputs of a panel as lanes. A chain of fmas waits
// for its own latency, so few rows run several panels side by side to have enough chains.

namespace edge {
namespace {

template <Code F>
constexpr int64_t float_row_bytes() {  // one k of a panel
  return kLanes * (F == Code::f32 ? 4 : 2);
}

// 8 weights from `data` as float32.
template <Code F>
inline __m256 load_weights(const uint8_t* data) {
  if (F == Code::f32) return _mm256_load_ps(reinterpret_cast<const float*>(data));
  const __m128i bits = _mm_load_si128(reinterpret_cast<const __m128i*>(data));
  if (F == Code::f16) return _mm256_cvtph_ps(bits);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

struct FloatOperands {
  const uint8_t* w;      // first panel, from the first k on
  int64_t panel_stride;  // bytes between panels
  const float* x;        // first row, from the first k on
  int64_t x_stride;
  float* y;  // first row, first panel
  int64_t y_stride;
  int64_t depth;  // k to do
  bool resume;    // y holds the sums of smaller k
};

// M rows by P panels.
template <Code F, int M, int P>
EDGE_TILE_KERNEL void add_products(const FloatOperands& in) {
  __m256 sums[M][P][2];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const float* y = in.y + m * in.y_stride + p * kLanes;
      sums[m][p][0] = in.resume ? _mm256_loadu_ps(y) : _mm256_setzero_ps();
      sums[m][p][1] = in.resume ? _mm256_loadu_ps(y + 8) : _mm256_setzero_ps();
    }
  }
  constexpr int64_t kRow = float_row_bytes<F>();
  const uint8_t* w = in.w;
  for (int64_t k = 0; k < in.depth; ++k, w += kRow) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const uint8_t* panel = w + p * in.panel_stride;
      if (M <= 2) _mm_prefetch(reinterpret_cast<const char*>(panel + 1024), _MM_HINT_T0);
      const __m256 w0 = load_weights<F>(panel), w1 = load_weights<F>(panel + kRow / 2);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        const __m256 x = _mm256_broadcast_ss(in.x + m * in.x_stride + k);
        sums[m][p][0] = _mm256_fmadd_ps(w0, x, sums[m][p][0]);
        sums[m][p][1] = _mm256_fmadd_ps(w1, x, sums[m][p][1]);
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      float* y = in.y + m * in.y_stride + p * kLanes;
      _mm256_storeu_ps(y, sums[m][p][0]);
      _mm256_storeu_ps(y + 8, sums[m][p][1]);
    }
  }
}

template <Code F>
void add_float_tile(int32_t height, const FloatOperands& in) {
  switch (height) {
    case 1:
      return add_products<F, 1, 1>(in);
    case 2:
      return add_products<F, 2, 1>(in);
    case 3:
      return add_products<F, 3, 1>(in);
    case 4:
      return add_products<F, 4, 1>(in);
    case 5:
      return add_products<F, 5, 1>(in);
    default:
      return add_products<F, 6, 1>(in);
  }
}

inline void add_bias(const LinearArgs& args, int64_t panel) {
  if (!args.bias) return;
  const Bias bias = load_bias(args.bias, panel * kLanes, args.weight.n);
  for (int32_t i = 0; i < args.x.rows; ++i) {
    float* y = args.y.row(i) + panel * kLanes;
    _mm256_storeu_ps(y, _mm256_add_ps(_mm256_loadu_ps(y), bias.low));
    _mm256_storeu_ps(y + 8, _mm256_add_ps(_mm256_loadu_ps(y + 8), bias.high));
  }
}

constexpr int32_t kFloatTile = 6;
constexpr int64_t kFloatDepth = 512;  // k of a panel held as floats in the first-level cache

// One panel, many rows: blocks of k, each converted to float once and run over all rows.
template <Code F>
void multiply_float_panel(const LinearArgs& args, int64_t panel) {
  const int64_t tiles = (args.x.rows + kFloatTile - 1) / kFloatTile;  // of nearly equal height
  alignas(64) float converted[F == Code::f32 ? 16 : kFloatDepth * kLanes];
  for (int64_t begin = 0; begin < args.weight.k; begin += kFloatDepth) {
    const int64_t depth = std::min(kFloatDepth, args.weight.k - begin);
    const uint8_t* w = panel_data(args.weight, panel) + begin * float_row_bytes<F>();
    if (F != Code::f32) {
      for (int64_t i = 0; i < depth * kLanes; i += 8) {
        _mm256_store_ps(converted + i, load_weights<F>(w + i * 2));
      }
      w = reinterpret_cast<const uint8_t*>(converted);
    }
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const auto first = static_cast<int32_t>(args.x.rows * tile / tiles);
      const auto last = static_cast<int32_t>(args.x.rows * (tile + 1) / tiles);
      add_float_tile<Code::f32>(
          last - first, {w, 0, args.x.row(first) + begin, args.x.stride,
                         args.y.row(first) + panel * kLanes, args.y.stride, depth, begin > 0});
    }
  }
}

template <Code F>
void multiply_float(const LinearArgs& args, Share panels) {
  const int32_t rows = args.x.rows;
  const int64_t stride = panel_bytes({F}, args.weight.k);
  int64_t panel = panels.begin;
  while (panel < panels.end) {
    const int64_t left = panels.end - panel;
    const FloatOperands in = {
        panel_data(args.weight, panel), stride,        args.x.data,   args.x.stride,
        args.y.data + panel * kLanes,   args.y.stride, args.weight.k, false};
    int64_t done = 1;
    if (rows == 1 && left >= 4) {
      add_products<F, 1, 4>(in);
      done = 4;
    } else if (rows == 2 && left >= 2) {
      add_products<F, 2, 2>(in);
      done = 2;
    } else if (rows == 3 && left >= 2) {
      add_products<F, 3, 2>(in);
      done = 2;
    } else if (rows <= kFloatTile) {
      add_float_tile<F>(rows, in);
    } else {
      multiply_float_panel<F>(args, panel);
    }
    for (int64_t p = 0; p < done; ++p) add_bias(args, panel + p);
    panel += done;
  }
}

}  // namespace
}  // namespace edge
