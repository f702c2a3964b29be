// int4 and int8 weights on NEON, over the way to sum products that one instruction set has.
//
// `Sums<M>` holds the integer sums of M rows of x with the 16 rows of a panel:
//   void add(low, high, x)   8 k: `low` are the first four k of the panel's rows, 4 rows a vector,
//                            `high` the next four; x is [2][M][4]
//   int32x4_t of(m, j)       the sums of row m of x with the rows 4 j .. 4 j + 3 of the panel
// Sums are int32 and exact. A nibble q + 8 becomes 16 q by flipping its upper bit, so a group's sum
// comes out sixteenfold, at most 128 * 128 * 128 = 2^21, and the conversion to float divides again.
#include <arm_neon.h>

#include <algorithm>

#include "linear/neon.h"

namespace edge {
namespace {

inline int8x16_t load_signed(const uint8_t* data) { return vreinterpretq_s8_u8(vld1q_u8(data)); }

// The words [k / 4][M][4] of one step of 4 k, M of them in a register.
template <int M>
inline int8x16_t load_words(const int8_t* x) {
  if constexpr (M == 4) {
    return vld1q_s8(x);
  } else {
    int32_t words[4] = {};
    std::memcpy(words, x, 4 * M);
    return vreinterpretq_s8_s32(vld1q_s32(words));
  }
}

// Adds one group's products with M rows of x to totals[M][16].
template <template <int> class Sums, int M, int G>
inline void add_group(const uint8_t* w, const int8_t* x, float* totals) {
  const uint8x16_t flip = vdupq_n_u8(0x88), upper = vdupq_n_u8(0xF0);
  Sums<M> sums;
#pragma GCC unroll 4
  for (int c = 0; c < G / 8; ++c, w += 64, x += 8 * M) {
    int8x16_t low[4], high[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const uint8x16_t pairs = veorq_u8(vld1q_u8(w + 16 * j), flip);
      low[j] = vreinterpretq_s8_u8(vshlq_n_u8(pairs, 4));
      high[j] = vreinterpretq_s8_u8(vandq_u8(pairs, upper));
    }
    sums.add(low, high, x);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const float16x4_t half =
        vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(w) + 4 * j));
    const float32x4_t scales = vcvt_f32_f16(half);
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      float* total = totals + m * kLanes + 4 * j;
      vst1q_f32(total, vfmaq_f32(vld1q_f32(total), scales, vcvtq_n_f32_s32(sums.of(m, j), 4)));
    }
  }
}

template <template <int> class Sums, int G>
struct Int4 {
  template <int M>
  static void total(const uint8_t* w, const int8_t* x, int64_t depth, float* totals) {
    std::fill(totals, totals + M * kLanes, 0.0f);
    for (int64_t k = 0; k < depth; k += G) {
      for (int line = 0; line < G * 8; line += 64) __builtin_prefetch(w + 1024 + line);
      add_group<Sums, M, G>(w, x, totals);
      w += G / kBlock * kInt4BlockBytes + kInt4ScaleBytes;
      x += G * M;
    }
  }
};

template <template <int> class Sums>
struct Int8 {
  template <int M>
  static void total(const uint8_t* w, const int8_t* x, int64_t depth, float* totals) {
    Sums<M> sums;
    for (int64_t k = 0; k < depth; k += 8, w += 2 * kInt8WordBytes, x += 8 * M) {
      __builtin_prefetch(w + 1024);
      __builtin_prefetch(w + 1024 + 64);
      int8x16_t low[4], high[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        low[j] = load_signed(w + 16 * j);
        high[j] = load_signed(w + kInt8WordBytes + 16 * j);
      }
      sums.add(low, high, x);
    }
    const float* scales = reinterpret_cast<const float*>(w);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) {
        vst1q_f32(
            totals + m * kLanes + 4 * j,
            vfmaq_f32(vdupq_n_f32(0.0f), vld1q_f32(scales + 4 * j), vcvtq_f32_s32(sums.of(m, j))));
      }
    }
  }
};

template <class Format>
void total_tile(int32_t height, const uint8_t* w, const int8_t* x, int64_t depth, float* totals) {
  static_assert(kNeonTile == 4, "one case per tile height");
  switch (height) {
    case 1:
      return Format::template total<1>(w, x, depth, totals);
    case 2:
      return Format::template total<2>(w, x, depth, totals);
    case 3:
      return Format::template total<3>(w, x, depth, totals);
    default:
      return Format::template total<4>(w, x, depth, totals);
  }
}

template <class Format>
void multiply_quantized(const LinearArgs& args, Share panels) {
  const QuantizedRows rows = quantized_rows(args.weight, args.x.rows, args.scratch);
  alignas(64) float totals[kNeonTile * kLanes];
  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    const uint8_t* data = panel_data(args.weight, panel);
    for (int32_t first = 0; first < args.x.rows; first += kNeonTile) {
      const int32_t height = std::min(kNeonTile, args.x.rows - first);
      total_tile<Format>(height, data, rows.q + first * rows.depth, rows.depth, totals);
      for (int32_t m = 0; m < height; ++m) {
        finish_row_neon(args, rows, panel, first + m, totals + m * kLanes);
      }
    }
  }
}

template <template <int> class Sums>
void multiply(const LinearArgs& args, Worker worker) {
  const Share panels = share(panel_count(args.weight), 1, worker);
  switch (args.weight.format.code) {
    case Code::i4:
      return args.weight.format.group == 32   ? multiply_quantized<Int4<Sums, 32>>(args, panels)
             : args.weight.format.group == 64 ? multiply_quantized<Int4<Sums, 64>>(args, panels)
                                              : multiply_quantized<Int4<Sums, 128>>(args, panels);
    case Code::u4:
      return linear_scalar.multiply(args, worker);
    case Code::i8:
      return multiply_quantized<Int8<Sums>>(args, panels);
    default:
      return multiply_float_neon(args, panels);
  }
}

template <template <int> class Sums>
constexpr LinearKernels linear_kernels() {
  return {quantized_rows_bytes, prepare_neon, multiply<Sums>, finishes_none, gather_rows};
}

}  // namespace
}  // namespace edge
