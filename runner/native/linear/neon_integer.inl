// Integer weights on NEON, over the way to sum products that one instruction set has.
//
// `Sums<M>` holds the integer sums of M rows of x with the 16 rows of a panel:
//   void add(low, high, x)   8 k: `low` are the first four k of the panel's rows, 4 rows a vector,
//                            `high` the next four; x is [2][M][4]
//   int32x4_t of(m, j)       the sums of row m of x with the rows 4 j .. 4 j + 3 of the panel
// Sums are int32 and exact. Of int4 a nibble q + 8 becomes 16 q by flipping its upper bit, so a
// group's sum comes out sixteenfold, at most 128 * 128 * 128 = 2^21, and the conversion to float
// divides again. Other codes become what they stand for.
#include <arm_neon.h>

#include <algorithm>
#include <type_traits>

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

// The codes of rows 4 j .. 4 j + 3 at step `s` (four k) of a group's codes, of int4 sixteenfold.
template <class F, int s>
inline int8x16_t step_codes(const uint8_t* codes, int j) {
  constexpr int kBits = code_bits(F::kCode);
  if constexpr (kBits == 8) {
    return load_signed(codes + 64 * s + 16 * j);
  } else {
    const uint8x16_t pairs = vld1q_u8(codes + s / 2 * 64 + 16 * j);
    if constexpr (F::kCode == Code::i4) {
      const uint8x16_t flipped = veorq_u8(pairs, vdupq_n_u8(0x88));
      return vreinterpretq_s8_u8(s % 2 ? vandq_u8(flipped, vdupq_n_u8(0xF0))
                                       : vshlq_n_u8(flipped, 4));
    } else {
      const uint8x16_t low = s % 2 ? vshrq_n_u8(pairs, 4) : vandq_u8(pairs, vdupq_n_u8(0x0F));
      if constexpr (has_levels(F::kCode)) {
        return vqtbl1q_s8(vld1q_s8(F::kCode == Code::e2m1 ? kE2m1 : kNl4), low);
      } else if constexpr (kBits > 4) {
        constexpr int kMask = ((1 << (kBits - 4)) - 1) << 4, kLeft = 4 - plane_shift(F::kCode, s);
        const uint8x16_t planes = vld1q_u8(codes + plane_offset(F::kFormat, s) + 16 * j);
        const uint8x16_t moved = vshlq_u8(planes, vdupq_n_s8(kLeft));
        const uint8x16_t field = vorrq_u8(low, vandq_u8(moved, vdupq_n_u8(kMask)));
        return vsubq_s8(vreinterpretq_s8_u8(field), vdupq_n_s8(code_offset(F::kCode)));
      } else {
        return vreinterpretq_s8_u8(low);
      }
    }
  }
}

// Adds the products of codes that are summed together, from step `s` on, with M rows of x.
template <class F, int s, template <int> class Sums, int M>
__attribute__((always_inline)) inline void add_codes(const uint8_t* codes, const int8_t* x,
                                                     Sums<M>& sums) {
  if constexpr (4 * s < F::kSummed) {
    int8x16_t low[4], high[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      low[j] = step_codes<F, s>(codes, j);
      high[j] = step_codes<F, s + 1>(codes, j);
    }
    sums.add(low, high, x + 4 * s * M);
    add_codes<F, s + 2>(codes, x, sums);
  }
}

// Vectors of the rows 4 j .. 4 j + 3 of a panel.
inline float32x4_t load_halves(const uint8_t* data, int j) {
  const uint16x4_t bits = vld1_u16(reinterpret_cast<const uint16_t*>(data) + 4 * j);
  return vcvt_f32_f16(vreinterpret_f16_u16(bits));
}
inline int32x4_t widen_signed(const uint8_t* data, int j) {
  uint32_t four;
  std::memcpy(&four, data + 4 * j, 4);
  return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four)))));
}
inline uint16x4_t widen_bytes(const uint8_t* data, int j) {
  uint32_t four;
  std::memcpy(&four, data + 4 * j, 4);
  return vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four))));
}

// Scales of a group, which is number `g` of its frame.
template <class F>
inline int32x4_t load_byte_scales(const uint8_t* tail, const uint8_t* frame, int g, int j) {
  if constexpr (F::kScale == ScaleType::s8) return widen_signed(frame + (2 + g) * kLanes, j);
  return vreinterpretq_s32_u32(vmovl_u16(widen_bytes(tail, j)));
}
template <class F>
inline float32x4_t load_scales(const uint8_t* tail, const uint8_t* frame, int g, int j) {
  if constexpr (F::kScale == ScaleType::e8m0) {
    const uint32x4_t bits = vshlq_n_u32(vmovl_u16(widen_bytes(frame + g * kLanes, j)), 23);
    return vmulq_n_f32(vreinterpretq_f32_u32(vmaxq_u32(bits, vdupq_n_u32(kSmallestExponent))),
                       0.5f);
  } else if constexpr (F::kFactors) {
    return vmulq_f32(load_halves(frame, j), vcvtq_f32_s32(load_byte_scales<F>(tail, frame, g, j)));
  } else {
    return load_halves(tail, j);
  }
}
// Its minima, or its zero points, negated; zeros where there are none.
template <class F>
inline float32x4_t load_minima(const uint8_t* tail, const uint8_t* frame, int g, int j) {
  if constexpr (F::kMinimum == MinimumType::f16) {
    return load_halves(tail + 2 * kLanes, j);
  } else if constexpr (F::kMinimum == MinimumType::zero) {
    return vnegq_f32(vcvtq_f32_u32(vmovl_u16(widen_bytes(frame + g * kLanes, j))));
  } else if constexpr (F::kMinimum == MinimumType::q8) {
    return vmulq_f32(vnegq_f32(load_halves(frame + 2 * kLanes, j)),
                     vcvtq_f32_u32(vmovl_u16(widen_bytes(tail + kLanes, j))));
  } else {
    return vdupq_n_f32(0.0f);
  }
}

// Adds what was summed of a group, number `g` of its frame, to totals[M][16], or, of byte scales
// that are integers, to scaled[M][16]. `tail` is the group's; `x` are the sums of x, `runs` the
// scales of rows by group.
template <class F, template <int> class Sums, int M>
inline void end_group(const uint8_t* tail, const uint8_t* frame, int g, const float* x,
                      const float* runs, const Sums<M>& sums, int32_t* scaled, float* totals) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    if constexpr (F::kScaled) {
      const int32x4_t scales = load_byte_scales<F>(tail, frame, g, j);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) {
        int32_t* to = scaled + m * kLanes + 4 * j;
        vst1q_s32(to, vmlaq_s32(vld1q_s32(to), sums.of(m, j), scales));
      }
    } else {
      const float32x4_t scales = load_scales<F>(tail, frame, g, j);
      const float32x4_t minima = load_minima<F>(tail, frame, g, j);
      const float32x4_t zeros = vdupq_n_f32(0.0f);
      const float32x4_t nothing = vfmaq_f32(zeros, scales, zeros);  // NaN beside an infinity
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) {
        float* to = totals + m * kLanes + 4 * j;
        const float32x4_t total = vld1q_f32(to);
        float32x4_t value, sum;
        if constexpr (F::kCode == Code::i4) {
          value = vcvtq_n_f32_s32(sums.of(m, j), 4);
        } else {
          value = vcvtq_f32_s32(sums.of(m, j));
        }
        if constexpr (F::kMinimum != MinimumType::none) sum = vdupq_n_f32(x[m]);
        // Integers below 2^24, exact in floats.
        if constexpr (F::kMinimum == MinimumType::zero) value = vfmaq_f32(value, minima, sum);
        value = vfmaq_f32(F::kByGroup ? nothing : total, scales, value);
        if constexpr (is_lifted(F::kFormat)) value = vfmaq_f32(value, minima, sum);
        if constexpr (F::kByGroup) value = vfmaq_n_f32(total, value, runs[m]);
        vst1q_f32(to, value);
      }
    }
  }
}

// Adds a frame of byte scales to totals[M][16].
template <class F, int M>
inline void end_frame(const uint8_t* frame, const float* x, const int32_t* scaled, float* totals) {
  const int16_t* sums = reinterpret_cast<const int16_t*>(x);  // of two groups side by side
  const uint8_t* minima = frame + F::kFrames.header + F::kFrames.codes + kLanes;
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const float32x4_t factors = load_halves(frame, j);
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      float* to = totals + m * kLanes + 4 * j;
      const float32x4_t sum = vcvtq_f32_s32(vld1q_s32(scaled + m * kLanes + 4 * j));
      const float32x4_t total = vfmaq_f32(vld1q_f32(to), factors, sum);
      vst1q_f32(to, total);
      if (F::kMinimum != MinimumType::q8) continue;
      int32x4_t lifted = vdupq_n_s32(0);
#pragma GCC unroll 8
      for (int g = 0; g < F::kFrames.together; ++g) {
        const uint16x4_t wide = widen_bytes(minima + g * F::kFrames.group_bytes(), j);
        const int16_t sum = sums[(g / 2 * M + m) * 2 + g % 2];
        lifted = vmlal_n_s16(lifted, vreinterpret_s16_u16(wide), sum);
      }
      const float32x4_t minimum_factors = vnegq_f32(load_halves(frame + 2 * kLanes, j));
      vst1q_f32(to, vfmaq_f32(total, minimum_factors, vcvtq_f32_s32(lifted)));
    }
  }
}

// Codes in groups. `sums` and `runs` are those of x, of the tile.
template <template <int> class Sums, class F>
struct Grouped {
  template <int M>
  static void total(const uint8_t* w, const int8_t* x, const float* sums, const float* runs,
                    int64_t depth, float* totals) {
    constexpr int kParts = F::kGroup / F::kSummed;
    constexpr Frames kFrames = F::kFrames;
    std::fill(totals, totals + M * kLanes, 0.0f);
    for (int64_t left = depth / F::kGroup; left > 0; left -= kFrames.together) {
      const uint8_t* const frame = w;
      w += kFrames.header;
      int32_t scaled[M * kLanes] = {};
      const int groups = static_cast<int>(std::min<int64_t>(left, kFrames.together));
      for (int g = 0; g < groups; ++g) {
        constexpr int kBytes = kFrames.group_bytes();
        for (int line = 0; line < kBytes; line += 64) __builtin_prefetch(w + 1024 + line);
        const uint8_t* const tail = w + kFrames.codes;
        for (int part = 0; part < kParts; ++part) {
          Sums<M> products;
          add_codes<F, 0>(w, x, products);
          end_group<F, Sums, M>(tail, frame, g, sums, runs, products, scaled, totals);
          w += kFrames.codes / kParts;
          x += F::kSummed * M;
          if (F::kMinimum != MinimumType::none && !F::kScaled) sums += M;
          if (F::kByGroup && (F::kSummed == kRun || g % 2 == 1)) runs += M;
        }
        w = tail + kFrames.tail;
      }
      if constexpr (F::kScaled) {
        end_frame<F, M>(frame, sums, scaled, totals);
        if (F::kMinimum == MinimumType::q8) sums += kFrames.together / 2 * M;
      }
    }
  }
};

template <template <int> class Sums, bool kByGroup>
struct Int8 {
  template <int M>
  static void total(const uint8_t* w, const int8_t* x, const float*, const float* runs,
                    int64_t depth, float* totals) {
    const int64_t columns = kByGroup ? kRun : depth;
    std::fill(totals, totals + M * kLanes, 0.0f);
    for (int64_t begin = 0; begin < depth; begin += columns, runs += M) {
      Sums<M> sums;
      for (int64_t k = 0; k < columns; k += 8, w += 2 * kInt8WordBytes, x += 8 * M) {
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
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) {
          float* to = totals + m * kLanes + 4 * j;
          const float32x4_t sum = vcvtq_f32_s32(sums.of(m, j));
          vst1q_f32(to, kByGroup ? vfmaq_n_f32(vld1q_f32(to), sum, runs[m]) : sum);
        }
      }
    }
    const float* scales = reinterpret_cast<const float*>(w);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) {
        float* to = totals + m * kLanes + 4 * j;
        vst1q_f32(to, vfmaq_f32(vdupq_n_f32(0.0f), vld1q_f32(scales + 4 * j), vld1q_f32(to)));
      }
    }
  }
};

template <class Format>
void total_tile(int32_t height, const uint8_t* w, const int8_t* x, const float* sums,
                const float* runs, int64_t depth, float* totals) {
  static_assert(kNeonTile == 4, "one case per tile height");
  switch (height) {
    case 1:
      return Format::template total<1>(w, x, sums, runs, depth, totals);
    case 2:
      return Format::template total<2>(w, x, sums, runs, depth, totals);
    case 3:
      return Format::template total<3>(w, x, sums, runs, depth, totals);
    default:
      return Format::template total<4>(w, x, sums, runs, depth, totals);
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
      total_tile<Format>(height, data, rows.q + first * rows.strides.q,
                         rows.sums + first * rows.strides.sums,
                         rows.runs + first * rows.strides.runs, rows.depth, totals);
      for (int32_t m = 0; m < height; ++m) {
        finish_row_neon(args, rows, panel, first + m, totals + m * kLanes);
      }
    }
  }
}

template <template <int> class Sums>
void multiply(const LinearArgs& args, Worker worker) {
  const Share panels = share(panel_count(args.weight), 1, worker);
  if (!is_quantized(args.weight.format)) return multiply_float_neon(args, panels);
  visit_groups(args.weight.format, [&](auto groups) {
    using F = decltype(groups);
    using Format = std::conditional_t<F::kGroup == 0, Int8<Sums, F::kByGroup>, Grouped<Sums, F>>;
    multiply_quantized<Format>(args, panels);
  });
}

template <template <int> class Sums>
constexpr LinearKernels linear_kernels() {
  return {quantized_rows_bytes, prepare_neon, multiply<Sums>, finishes_none, gather_rows};
}

}  // namespace
}  // namespace edge
