// Integer linears with vpdpbusd: panels, tiles of rows, epilogues.

namespace edge {
namespace {

constexpr int32_t kInt8Columns = 16;  // of int8 weights, that a round takes

// Adds the next `Steps` of int8 weights, four k each, with `x` and what follows it in its piece.
template <int Steps, class S, int M, int P>
__attribute__((always_inline)) inline void add_int8(VnniOperands& in, const int8_t* x,
                                                    Sums<S, M, P>& sums) {
  using Words = typename S::Words;
#pragma GCC unroll 8
  for (int step = 0; step < Steps; ++step, in.w += kInt8WordBytes, x += 4) {
    Words w[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      if constexpr (P == 1) fetch_ahead<M>(in.w);
      w[p] = Words::load(in.w + p * in.panel_stride).plus_128();
    }
    sums.add(step, w, x);
  }
}

// totals[M][P][16] for int8, whose panels end in 16 scales.
template <class S, class F, int M, int P>
EDGE_TILE_KERNEL void total_int8(VnniOperands in, float* memory) {
  using V = typename S::Lanes;
  Totals<S, M, P> totals;
  totals.memory = memory;
  if constexpr (F::kByGroup) {
    totals.fill(V::broadcast(0.0f));
    for (int64_t k = 0; k < in.depth; k += kRun) {
      if constexpr (P > 1) in.template fetch<P>();
      Sums<S, M, P> sums;
      sums.template start<true>(tile_words<M>(in.starts, k / kRun));
      add_int8<kRun / 4>(in, tile_bytes<M>(in.x, k), sums);
      const float* const runs = tile_words<M>(in.runs, k / kRun);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const V run = V::broadcast(runs[m * kLineWords]);
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) {
          totals.set(m, p, fma(run, sums.lanes(m, p), totals.get(m, p)));
        }
      }
    }
  } else {
    Sums<S, M, P> sums;
    sums.template start<true>(in.starts);
    for (int64_t k = 0; k < in.depth; k += kInt8Columns) {
      if constexpr (P > 1) in.template fetch<P>();
      add_int8<kInt8Columns / 4>(in, tile_bytes<M>(in.x, k), sums);
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) totals.set(m, p, sums.lanes(m, p));
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
    const V scales = V::load(reinterpret_cast<const float*>(in.w + p * in.panel_stride));
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      totals.set(m, p, fma(scales, totals.get(m, p), V::broadcast(0.0f)));
    }
  }
  totals.store();
}

// `F`: the format's Groups.
template <class S, class F, int M, int P>
inline void total_tile(const VnniOperands& in, float* totals) {
  if constexpr (F::kGroup == 0) {
    total_int8<S, F, M, P>(in, totals);
  } else {
    total_groups<S, F, M, P>(in, totals);
  }
}

template <class S>
constexpr int kMostRows = S::kFewRows > S::kTileRows ? S::kFewRows : S::kTileRows;

template <class S, class F, int P, int M = 1>
__attribute__((always_inline)) inline void total_tile_of(int32_t height, const VnniOperands& in,
                                                         float* totals) {
  if constexpr (M < kMostRows<S>) {
    if (height > M) return total_tile_of<S, F, P, M + 1>(height, in, totals);
  }
  total_tile<S, F, M, P>(in, totals);
}

// Rows that one pass over a panel's weights serves: tiles of nearly equal height.
template <class S>
inline int32_t tile_rows(int32_t rows) {
  const int32_t most = rows <= S::kFewRows ? S::kFewRows : S::kTileRows;
  const int32_t tiles = (rows + most - 1) / most;
  return tiles ? (rows + tiles - 1) / tiles : 1;
}

// Rows of y lie too far apart for the processor to see them coming.
inline void fetch_rows(const Matrix& y, int64_t column, int32_t columns, int32_t first,
                       int32_t height) {
  for (int32_t row = first; row < first + height; ++row) {
    const float* line = y.row(row) + column;
    for (int32_t i = 0; i < columns; i += kLanes) __builtin_prefetch(line + i, 1);
  }
}

// Rounds of the loop over a panel's weights, and bytes of these.
template <class F>
inline int64_t rounds(int64_t depth) {
  return depth / (F::kGroup > 0 ? F::kGroup : F::kByGroup ? kRun : kInt8Columns);
}
template <class F>
inline int64_t weight_bytes(int64_t depth) {
  if constexpr (F::kGroup > 0) return F::kFrames.bytes(depth / F::kGroup);
  return depth / 4 * kInt8WordBytes;
}

constexpr bool is_gated(Epilogue epilogue) {
  return epilogue == Epilogue::silu_mul || epilogue == Epilogue::gelu_mul;
}

// Panels that are worked on together: neighbours, or one of a gate and the same one of `up`.
template <int P>
struct PanelGroup {
  const uint8_t* data[P];
  const float* bias[P];  // null: none
  int64_t stride;        // bytes of a panel
  int64_t column;        // of y, of the first

  template <class V>
  V constants(int p) const {
    return V::load(reinterpret_cast<const float*>(data[p] + stride - kVectorBytes));
  }
};

template <int P, Epilogue E>
inline PanelGroup<P> panel_group(const LinearArgs& args, int64_t panel) {
  PanelGroup<P> group;
  group.stride = panel_bytes(args.weight.format, args.weight.k);
  group.column = panel * kLanes;
  for (int p = 0; p < P; ++p) {
    const bool up = is_gated(E) && p == 1;
    const int64_t number = is_gated(E) ? panel : panel + p;
    const float* bias = up ? args.up_bias : args.bias;
    group.data[p] = (up ? args.up : args.weight.data) + number * group.stride;
    group.bias[p] = bias == nullptr ? nullptr : bias + number * kLanes;
  }
  return group;
}

// y = scale * (total - zero * constant) + bias, and the epilogue, for rows [first, end). The total
// of row first + m and panel p is at totals[m * row_step + p * panel_step]. All that stays the same
// is loaded before the first store, behind which nothing is known to stay the same.
template <class V, int P, Epilogue E>
inline void finish_rows(const LinearArgs& args, const QuantizedRows& rows,
                        const PanelGroup<P>& group, int32_t first, int32_t end, const float* totals,
                        int32_t row_step, int32_t panel_step) {
  V constant[P], bias[P];
  const bool biased = args.bias != nullptr;
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
    constant[p] = group.template constants<V>(p);
    if (!biased) continue;
    const int64_t column = group.column + (is_gated(E) ? 0 : p * kLanes);
    const int64_t lanes = std::min<int64_t>(kLanes, args.weight.n - column);
    bias[p] = V::load_first(group.bias[p], static_cast<int32_t>(lanes));
  }
  const float *scale = rows.scale + first, *minus_zero = rows.minus_zero + first;
  const int64_t stride = args.y.stride, residual_stride = args.residual.stride;
  const float* residual = E == Epilogue::add ? args.residual.row(first) + group.column : nullptr;
  float* y = args.y.row(first) + group.column;
  for (int32_t m = 0; m < end - first; ++m, y += stride, totals += row_step) {
    V part[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      part[p] = fma(V::broadcast(minus_zero[m]), constant[p], V::load(totals + p * panel_step));
      part[p] = V::broadcast(scale[m]) * part[p];
      if (biased) part[p] = part[p] + bias[p];
    }
    if constexpr (is_gated(E)) {
      ((E == Epilogue::silu_mul ? silu_of(part[0]) : gelu_of(part[0])) * part[1]).store(y);
    } else {
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) {
        if (E == Epilogue::add) part[p] = V::load(residual + p * kLanes) + part[p];
        part[p].store(y + p * kLanes);
      }
      if (E == Epilogue::add) residual += residual_stride;
    }
  }
}

// Tiles whose totals are finished together: what finishing waits for itself is then a small part.
constexpr int32_t kFinished = 4;

// P panels, all rows, T panels (P or 1) in a tile.
template <class S, class F, int P, int T, Epilogue E>
void multiply_panels(const LinearArgs& args, const QuantizedRows& rows, int64_t panel) {
  constexpr int32_t kRowStep = T * kLanes;
  constexpr int32_t kPanelStep = T == P ? kLanes : kFinished * kMostRows<S> * kLanes;
  constexpr int32_t kColumns = is_gated(E) ? kLanes : P * kLanes;
  const int32_t tile = tile_rows<S>(args.x.rows), count = args.x.rows;
  const PanelGroup<P> group = panel_group<P, E>(args, panel);
  const int64_t distance = group.stride * (is_gated(E) ? 1 : P);
  // The next panels are asked for while these are worked on, a part with each tile.
  const int64_t fetched = rounds<F>(rows.depth) * kLineBytes;  // with a line in each round
  const int64_t wanted = weight_bytes<F>(rows.depth) * tile / count;
  const auto fetches = static_cast<int32_t>((wanted + fetched - 1) / fetched);
  VnniOperands in{
      group.data[0], group.data[P - 1] - group.data[0], rows.q, rows.starts, rows.sums, rows.runs,
      rows.depth,    group.data[0] + distance,          0};
  const uint8_t* const behind = in.next + group.stride;
  alignas(64) float totals[kFinished * kMostRows<S> * P * kLanes];
  for (int32_t begin = 0; begin < count;) {
    const int32_t end = std::min(begin + kFinished * tile, count);
    for (int32_t first = begin; first < end; first += tile) {
      const int32_t height = std::min(tile, end - first);
      fetch_rows(args.y, group.column, kColumns, first, height);
#pragma GCC unroll 4
      for (int p = 0; p < P; p += T) {
        in.w = group.data[p];
        in.fetches = T > 1 && in.next < behind ? fetches : 0;
        total_tile_of<S, F, T>(height, in, totals + (first - begin) * kRowStep + p * kPanelStep);
      }
      in.next += fetches * fetched;
      in.x += height * rows.strides.q;
      in.starts += height * rows.strides.starts;
      in.sums += height * rows.strides.sums;
      in.runs += height * rows.strides.runs;
    }
    finish_rows<typename S::Lanes, P, E>(args, rows, group, begin, end, totals, kRowStep,
                                         kPanelStep);
    begin = end;
  }
}

template <class S, class F, Epilogue E>
void multiply_integers(const LinearArgs& args, Share panels) {
  constexpr int kTile = S::kTilePanels;
  const QuantizedRows rows = quantized_rows(args.weight, args.x.rows, args.scratch);
  int64_t panel = panels.begin;
  if constexpr (is_gated(E)) {
    for (; panel < panels.end; ++panel) multiply_panels<S, F, 2, kTile, E>(args, rows, panel);
  } else {
    if (args.x.rows > S::kFewRows) {
      for (; panel + kTile <= panels.end; panel += kTile) {
        multiply_panels<S, F, kTile, kTile, E>(args, rows, panel);
      }
    }
    for (; panel < panels.end; ++panel) multiply_panels<S, F, 1, 1, E>(args, rows, panel);
  }
}

template <class S, class F>
void multiply_integers(const LinearArgs& args, Share panels) {
  switch (args.epilogue) {
    case Epilogue::add:
      return multiply_integers<S, F, Epilogue::add>(args, panels);
    case Epilogue::silu_mul:
      return multiply_integers<S, F, Epilogue::silu_mul>(args, panels);
    case Epilogue::gelu_mul:
      return multiply_integers<S, F, Epilogue::gelu_mul>(args, panels);
    default:
      return multiply_integers<S, F, Epilogue::none>(args, panels);
  }
}

template <class S>
void prepare_vnni(const LinearArgs& args, Share mine) {
  const QuantizedRows rows = quantized_rows(args.weight, args.x.rows, args.scratch);
  const int32_t tile = tile_rows<S>(args.x.rows);
  const WordStarts starts = starts_of(args.weight.format, rows.depth);
  for (int64_t i = mine.begin; i < mine.end; ++i)
    quantize_row(args.x, i, tile, args.weight.format, starts, rows);
}

template <class S>
void multiply_vnni(const LinearArgs& args, Worker worker) {
  const Share panels = share(panel_count(args.weight), 1, worker);
  if (is_quantized(args.weight.format)) {
    return visit_groups(args.weight.format,
                        [&](auto groups) { multiply_integers<S, decltype(groups)>(args, panels); });
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

// A gate of few rows is faster as two streams one after the other.
template <class S>
bool finishes(const LinearArgs& args) {
  const bool apart = is_gated(args.epilogue) && args.x.rows <= S::kFewRows;
  if (args.epilogue == Epilogue::clamped_mul) return false;
  return args.epilogue == Epilogue::none || (is_quantized(args.weight.format) && !apart);
}

template <class S>
constexpr LinearKernels linear_vnni() {
  return {quantized_rows_bytes, prepare_vnni<S>, multiply_vnni<S>, finishes<S>, gather_rows};
}

}  // namespace
}  // namespace edge
