// The linear kernels of baseline aarch64, and what the larger instruction sets share with them.
#include "linear/neon_integer.inl"
#include "simd/lanes_neon.h"
#include "simd/math.h"

namespace edge {
namespace {

using neon::Lanes;

RowScale measure_row(const float* x, int32_t k) {
  Lanes low = Lanes::broadcast(0.0f), high = low;
  const Lanes infinity = Lanes::broadcast(std::numeric_limits<float>::infinity());
  auto finite = Lanes::Mask::first(kLanes);
  for (int32_t i = 0; i < k; i += kLanes) {
    const int32_t count = std::min(kLanes, k - i);
    const Lanes values = count == kLanes ? Lanes::load(x + i) : Lanes::load_first(x + i, count);
    low = min(values, low);
    high = max(values, high);
    finite = finite & less(abs(values), infinity);
  }
  return row_scale(-max(-low), max(high), finite.bits() == 0xffffu);
}

// Of kRun columns, of which `count` are there.
RowScale measure_run(const float* x, int32_t count) {
  Lanes largest = Lanes::broadcast(0.0f);
  const Lanes infinity = Lanes::broadcast(std::numeric_limits<float>::infinity());
  auto finite = Lanes::Mask::first(kLanes);
  for (int32_t i = 0; i < count; i += kLanes) {
    const Lanes values = abs(Lanes::load_first(x + i, std::min(kLanes, count - i)));
    largest = max(values, largest);
    finite = finite & less(values, infinity);
  }
  return run_scale(max(largest), finite.bits() == 0xffffu);
}

// Row `i` of x into its tile, for weights of `format`.
void quantize_row(const Matrix& x, int64_t i, WeightFormat format, const QuantizedRows& rows) {
  const int64_t first = i / kNeonTile * kNeonTile;
  const int64_t height = std::min<int64_t>(kNeonTile, x.rows - first);
  const TileRow at = {first, height, i};
  int8_t* q = rows.q + first * rows.strides.q + (i - first) * 4;
  const float* data = x.row(i);
  const bool grouped = by_group(format);
  const int32_t summed = summed_columns(format);
  RowScale part = grouped ? RowScale{1.0f, 1.0f, 0, true} : measure_row(data, x.cols);
  rows.scale[i] = part.scale;
  rows.minus_zero[i] = static_cast<float>(-part.zero);
  const Lanes zero = Lanes::broadcast(static_cast<float>(part.zero));
  const Lanes bias = Lanes::broadcast(kIntegerBias);  // rounds to an integer
  int32_t sum = 0;
  for (int64_t k = 0; k < rows.depth; k += kLanes) {
    const auto count = static_cast<int32_t>(std::clamp<int64_t>(x.cols - k, 0, kLanes));
    if (grouped && k % kRun == 0) {
      part = measure_run(data + k, static_cast<int32_t>(std::min<int64_t>(kRun, x.cols - k)));
      store_run<1>(rows, at, k, part.scale);
    }
    int8_t bytes[kLanes] = {};
    if (part.finite && count > 0) {
      const Lanes values =
          count == kLanes ? Lanes::load(data + k) : Lanes::load_first(data + k, count);
      (values * Lanes::broadcast(part.inverse) + bias - bias + zero).store(bytes);
      std::fill(bytes + count, bytes + kLanes, int8_t{0});
    }
    for (int32_t j = 0; j < 4; ++j) std::memcpy(q + (k + 4 * j) * height, bytes + 4 * j, 4);
    if (format.minimum == MinimumType::none) continue;
    sum += vaddlvq_s8(vld1q_s8(bytes));
    if ((k + kLanes) % summed == 0) {
      store_sum<1>(rows, format, at, k / summed, sum);
      sum = 0;
    }
  }
}

// Sums without the dot product extension: products in 16 bits, at most 128 * 128 each, added in
// pairs to int32, so that a panel row has two lanes until the end.
template <int M>
struct WideningSums {
  int32x4_t sums[M][8];

  WideningSums() {
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) sums[m][j] = vdupq_n_s32(0);
    }
  }

  void add_four(const int8x16_t (&w)[4], const int8_t* x) {
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      int32_t word;
      std::memcpy(&word, x + 4 * m, 4);
      const int8x16_t all = vreinterpretq_s8_s32(vdupq_n_s32(word));
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        sums[m][2 * j] = vpadalq_s16(sums[m][2 * j], vmull_s8(vget_low_s8(w[j]), vget_low_s8(all)));
        sums[m][2 * j + 1] = vpadalq_s16(sums[m][2 * j + 1], vmull_high_s8(w[j], all));
      }
    }
  }

  void add(const int8x16_t (&low)[4], const int8x16_t (&high)[4], const int8_t* x) {
    add_four(low, x);
    add_four(high, x + 4 * M);
  }

  int32x4_t of(int m, int j) const { return vpaddq_s32(sums[m][2 * j], sums[m][2 * j + 1]); }
};

// 16 weights of one k.
template <Code F>
Lanes load_weights(const uint8_t* data) {
  if constexpr (F == Code::f32) return Lanes::load(reinterpret_cast<const float*>(data));
  if constexpr (F == Code::f16) return Lanes::load(reinterpret_cast<const Half*>(data));
  const uint16_t* bits = reinterpret_cast<const uint16_t*>(data);
  const uint16x8_t low = vld1q_u16(bits), high = vld1q_u16(bits + 8);
  return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(low), 16)),
          vreinterpretq_f32_u32(vshll_high_n_u16(low, 16)),
          vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(high), 16)),
          vreinterpretq_f32_u32(vshll_high_n_u16(high, 16))};
}

// The bias of 16 outputs from `first`; nothing is read past `n`.
Lanes load_bias(const float* bias, int64_t first, int32_t n) {
  return Lanes::load_first(bias + first,
                           static_cast<int32_t>(std::min<int64_t>(kLanes, n - first)));
}

// M rows of x from `first`, by one panel.
template <Code F, int M>
void multiply_float_tile(const LinearArgs& args, int64_t panel, int32_t first) {
  constexpr int64_t kRowBytes = kLanes * (F == Code::f32 ? 4 : 2);
  const uint8_t* w = panel_data(args.weight, panel);
  Lanes sums[M];
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) sums[m] = Lanes::broadcast(0.0f);
  for (int32_t k = 0; k < args.weight.k; ++k, w += kRowBytes) {
    if (M == 1) __builtin_prefetch(w + 1024);
    const Lanes weights = load_weights<F>(w);
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      sums[m] = fma(weights, Lanes::broadcast(args.x.row(first + m)[k]), sums[m]);
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) {
    if (args.bias) sums[m] = sums[m] + load_bias(args.bias, panel * kLanes, args.weight.n);
    sums[m].store(args.y.row(first + m) + panel * kLanes);
  }
}

template <Code F>
void multiply_float(const LinearArgs& args, Share panels) {
  static_assert(kNeonTile == 4, "one case per tile height");
  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    for (int32_t first = 0; first < args.x.rows; first += kNeonTile) {
      switch (args.x.rows - first) {
        case 1:
          multiply_float_tile<F, 1>(args, panel, first);
          break;
        case 2:
          multiply_float_tile<F, 2>(args, panel, first);
          break;
        case 3:
          multiply_float_tile<F, 3>(args, panel, first);
          break;
        default:
          multiply_float_tile<F, 4>(args, panel, first);
      }
    }
  }
}

}  // namespace

void prepare_neon(const LinearArgs& args, Share mine) {
  const QuantizedRows rows = quantized_rows(args.weight, args.x.rows, args.scratch);
  for (int64_t i = mine.begin; i < mine.end; ++i) quantize_row(args.x, i, args.weight.format, rows);
}

void multiply_float_neon(const LinearArgs& args, Share panels) {
  switch (args.weight.format.code) {
    case Code::f16:
      return multiply_float<Code::f16>(args, panels);
    case Code::bf16:
      return multiply_float<Code::bf16>(args, panels);
    default:
      return multiply_float<Code::f32>(args, panels);
  }
}

void finish_row_neon(const LinearArgs& args, const QuantizedRows& rows, int64_t panel, int64_t row,
                     const float* totals) {
  const Lanes constants = Lanes::load(row_constants(args.weight, panel));
  const Lanes minus_zero = Lanes::broadcast(rows.minus_zero[row]);
  Lanes y = Lanes::broadcast(rows.scale[row]) * fma(minus_zero, constants, Lanes::load(totals));
  if (args.bias) y = y + load_bias(args.bias, panel * kLanes, args.weight.n);
  y.store(args.y.row(row) + panel * kLanes);
}

const LinearKernels linear_neon = linear_kernels<WideningSums>();

}  // namespace edge
