// Codes in groups: the loop over a panel's groups, and what each format does at their ends.

namespace edge {
namespace {

// The unsigned weights of step `s` (four k) of the codes at `w`, of a group or of a block of one.
template <class F, int s, class Words>
inline Words unsigned_codes(const uint8_t* w) {
  constexpr int kBits = code_bits(F::kCode);
  if constexpr (kBits == 8) {
    return Words::load(w + 64 * s).plus_128();
  } else {
    const Words pairs = Words::load(w + s / 2 * 64);
    const Words low = s % 2 ? pairs.high_nibbles() : pairs.low_nibbles();
    if constexpr (has_levels(F::kCode)) {
      static constexpr LevelTable kTable = unsigned_levels(F::kCode);
      return low.levels(kTable.bytes);
    } else if constexpr (kBits > 4) {
      constexpr int kMask = ((1 << (kBits - 4)) - 1) << 4, kLeft = 4 - plane_shift(F::kCode, s);
      return low | Words::load(w + plane_offset(F::kFormat, s)).template field<kLeft, kMask>();
    } else {
      return low;
    }
  }
}

// Adds the steps from `s` to `End` of the codes at `w`, one after the other, so that few registers
// hold weights.
template <class F, int s, int End, class S, int M, int P>
__attribute__((always_inline)) inline void add_steps(const uint8_t* w, int64_t panel_stride,
                                                     const int8_t* x, Sums<S, M, P>& sums) {
  if constexpr (s < End) {
    typename S::Words part[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      part[p] = unsigned_codes<F, s, typename S::Words>(w + p * panel_stride);
    }
    sums.add(s, part, x + s * 4);
    add_steps<F, s + 1, End>(w, panel_stride, x, sums);
  }
}

// A number for each of M rows, P panels and 16 lanes: in registers where they have room beside the
// sums, else in memory.
template <class T, class Stored, int M, int P, bool kOwn>
struct Tile {
  T own[kOwn ? M : 1][kOwn ? P : 1];
  Stored* memory;  // [M][P][16]

  void fill(T value) {
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) set(m, p, value);
    }
  }
  T get(int m, int p) const {
    if constexpr (kOwn) return own[m][p];
    return T::load(memory + (m * P + p) * kLanes);
  }
  void set(int m, int p, T value) {
    if constexpr (kOwn) {
      own[m][p] = value;
    } else {
      value.store(memory + (m * P + p) * kLanes);
    }
  }
  void store() const {
    if constexpr (kOwn) {
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) own[m][p].store(memory + (m * P + p) * kLanes);
      }
    }
  }
};

template <class S, int M, int P>
using Totals = Tile<typename S::Lanes, float, M, P, (M * P <= S::kTotals)>;

inline const Half* halves(const uint8_t* data) { return reinterpret_cast<const Half*>(data); }

// The scales of group `g` of a frame of one panel, whose header is `frame`; `tail` is the group's.
template <class S, class F>
inline typename S::Lanes group_scales(const uint8_t* tail, const uint8_t* frame, int g) {
  using V = typename S::Lanes;
  using Words = typename S::Words;
  if constexpr (F::kScale == ScaleType::e8m0) {
    return V::broadcast(0.5f) * Words::widen(frame + g * kLanes).exponents();
  } else if constexpr (F::kScale == ScaleType::s8) {
    const uint8_t* bytes = frame + (2 + g) * kLanes;
    return V::load(halves(frame)) * Words::widen(reinterpret_cast<const int8_t*>(bytes)).lanes();
  } else if constexpr (F::kScale == ScaleType::q8) {
    return V::load(halves(frame)) * Words::widen(tail).lanes();
  } else {
    return V::load(halves(tail));
  }
}

// Its minima, or its zero points, negated.
template <class S, class F>
inline typename S::Lanes group_minima(const uint8_t* tail, const uint8_t* frame, int g) {
  using V = typename S::Lanes;
  using Words = typename S::Words;
  if constexpr (F::kMinimum == MinimumType::q8) {
    return -V::load(halves(frame) + kLanes) * Words::widen(tail + kLanes).lanes();
  } else if constexpr (F::kMinimum == MinimumType::zero) {
    return -Words::widen(frame + g * kLanes).lanes();
  } else {
    return V::load(halves(tail) + kLanes);
  }
}

// What a format does with the sums over the columns from `k` on, which belong to a group whose tail
// is `tail`, and at the end of a frame, whose header is `frame` and whose columns begin at `k`;
// then `in` stands behind the frame's last group.
template <class S, class F, int M, int P, bool kByGroup = F::kByGroup, bool kFactors = F::kFactors,
          MinimumType N = F::kMinimum>
struct Ends;

template <class S, class F, int M, int P>
struct Ends<S, F, M, P, false, false, MinimumType::none> {
  Totals<S, M, P> totals;

  void open(float* memory, int32_t*) {
    totals.memory = memory;
    totals.fill(S::Lanes::broadcast(0.0f));
  }
  void group(const VnniOperands& in, const uint8_t* tail, const uint8_t* frame, int g, int64_t,
             const Sums<S, M, P>& sums) {
    using V = typename S::Lanes;
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const int64_t panel = p * in.panel_stride;
      const V scales = group_scales<S, F>(tail + panel, frame + panel, g);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        totals.set(m, p, fma(scales, sums.lanes(m, p), totals.get(m, p)));
      }
    }
  }
  void frame(const VnniOperands&, const uint8_t*, int64_t) {}
};

template <class S, class F, int M, int P>
struct Ends<S, F, M, P, false, false, MinimumType::f16>
    : Ends<S, F, M, P, false, false, MinimumType::none> {
  void group(const VnniOperands& in, const uint8_t* tail, const uint8_t* frame, int g, int64_t k,
             const Sums<S, M, P>& sums) {
    using V = typename S::Lanes;
    const float* const x = tile_words<M>(in.sums, k / F::kSummed);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const int64_t panel = p * in.panel_stride;
      const V scales = group_scales<S, F>(tail + panel, frame + panel, g);
      const V minima = group_minima<S, F>(tail + panel, frame + panel, g);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const V scaled = fma(scales, sums.lanes(m, p), this->totals.get(m, p));
        this->totals.set(m, p, fma(minima, V::broadcast(x[m * kLineWords]), scaled));
      }
    }
  }
};

// All but the last operation is on integers below 2^24, which floats hold exactly.
template <class S, class F, int M, int P>
struct Ends<S, F, M, P, false, false, MinimumType::zero>
    : Ends<S, F, M, P, false, false, MinimumType::none> {
  void group(const VnniOperands& in, const uint8_t* tail, const uint8_t* frame, int g, int64_t k,
             const Sums<S, M, P>& sums) {
    using V = typename S::Lanes;
    const float* const x = tile_words<M>(in.sums, k / F::kSummed);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const int64_t panel = p * in.panel_stride;
      const V scales = group_scales<S, F>(tail + panel, frame + panel, g);
      const V zeros = group_minima<S, F>(tail + panel, frame + panel, g);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const V value = fma(zeros, V::broadcast(x[m * kLineWords]), sums.lanes(m, p));
        this->totals.set(m, p, fma(scales, value, this->totals.get(m, p)));
      }
    }
  }
};

// Byte scales and minima: integers up to the end of a frame (scalar.cpp says why they fit).
// vpdpwssd adds the sums of x over two groups times their minima, at most 2 * 255 * 2^12.
template <class S, class F, int M, int P, MinimumType N>
struct Ends<S, F, M, P, false, true, N> {
  using V = typename S::Lanes;
  using Words = typename S::Words;
  static constexpr bool kLifted = N == MinimumType::q8;
  static constexpr int kPairs = F::kFrames.together / 2;
  float* totals;
  Tile<Words, int32_t, M, P, (M * P <= S::kTotals)> scaled;

  void open(float* to, int32_t* integers) {
    totals = to;
    for (int i = 0; i < M * P; ++i) V::broadcast(0.0f).store(totals + i * kLanes);
    scaled.memory = integers;
    scaled.fill(Words::broadcast(0));
  }
  void group(const VnniOperands& in, const uint8_t* tail, const uint8_t* frame, int g, int64_t,
             const Sums<S, M, P>& sums) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const uint8_t* signed_scales = frame + p * in.panel_stride + (2 + g) * kLanes;
      const Words scales = F::kScale == ScaleType::s8
                               ? Words::widen(reinterpret_cast<const int8_t*>(signed_scales))
                               : Words::widen(tail + p * in.panel_stride);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        Words total = scaled.get(m, p);
        total.add_scaled(sums.of(m, p), scales);
        scaled.set(m, p, total);
      }
    }
  }
  void frame(const VnniOperands& in, const uint8_t* frame, int64_t k) {
    const float* const x = tile_words<M>(in.sums, k / (2 * F::kGroup));
    constexpr int kTail = F::kFrames.header + F::kFrames.codes;
    constexpr int kStep = 2 * F::kFrames.group_bytes();
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const uint8_t* panel = frame + p * in.panel_stride;
      const V factors = V::load(halves(panel));
      Words minima[kLifted ? kPairs : 1];
      V minimum_factors;
      if constexpr (kLifted) {
#pragma GCC unroll 4
        for (int j = 0; j < kPairs; ++j) {
          const uint8_t *even = panel + kTail + j * kStep, *odd = even + kStep / 2;
          minima[j] = Words::widen(even + kLanes) | Words::widen(odd + kLanes).upper();
        }
        minimum_factors = -V::load(halves(panel) + kLanes);
      }
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        float* to = totals + (m * P + p) * kLanes;
        V y = fma(factors, scaled.get(m, p).lanes(), V::load(to));
        if constexpr (kLifted) {
          Words lifted = Words::broadcast(0);
#pragma GCC unroll 4
          for (int j = 0; j < kPairs; ++j) {
            lifted.add_pairs(Words::repeat(x + m * kLineWords + j), minima[j]);
          }
          y = fma(minimum_factors, lifted.lanes(), y);
        }
        y.store(to);
      }
    }
    scaled.fill(Words::broadcast(0));
  }
};

// Rows by group: what the columns of one of their scales give is multiplied with it. Sums that
// begin at kFloatBase are floats already, and fma(scale, base + dot, -scale * base) rounds scale *
// dot.
template <class S, class F, int M, int P, bool kFactors, MinimumType N>
struct Ends<S, F, M, P, true, kFactors, N> : Ends<S, F, M, P, false, false, MinimumType::none> {
  void group(const VnniOperands& in, const uint8_t* tail, const uint8_t* frame, int g, int64_t k,
             const Sums<S, M, P>& sums) {
    using V = typename S::Lanes;
    const float* const runs = tile_words<M>(in.runs, k / kRun);
    const float* const x = tile_words<M>(in.sums, N == MinimumType::none ? 0 : k / F::kSummed);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const int64_t panel = p * in.panel_stride;
      const V scales = group_scales<S, F>(tail + panel, frame + panel, g);
      V minima;
      if constexpr (N != MinimumType::none) {
        minima = group_minima<S, F>(tail + panel, frame + panel, g);
      }
      constexpr bool kBased = has_float_base(F::kFormat);
      const V base = scales * V::broadcast(kBased ? -kFloatBase : 0.0f);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        V part;
        if constexpr (kBased) {
          part = sums.of(m, p).floats();
        } else {
          part = sums.lanes(m, p);
        }
        if constexpr (N == MinimumType::zero)
          part = fma(minima, V::broadcast(x[m * kLineWords]), part);
        part = fma(scales, part, base);
        if constexpr (is_lifted(F::kFormat))
          part = fma(minima, V::broadcast(x[m * kLineWords]), part);
        this->totals.set(m, p,
                         fma(V::broadcast(runs[m * kLineWords]), part, this->totals.get(m, p)));
      }
    }
  }
};

// totals[M][P][16] of a tile of M rows and P panels.
template <class S, class F, int M, int P>
EDGE_TILE_KERNEL void total_groups(VnniOperands in, float* totals) {
  constexpr int kBytes = F::kFrames.group_bytes();
  constexpr Frames kFrames = F::kFrames;
  constexpr int kSteps = std::min(F::kGroup, kBlock) / 4;  // of a block
  constexpr int kBlocks = F::kSummed / 4 / kSteps;
  constexpr int kParts = F::kGroup / F::kSummed;
  constexpr bool kStarts = code_offset(F::kCode) > 0;
  // Beside `ends`: in it, what points to it would keep all of it out of registers.
  alignas(64) int32_t integers[F::kScaled ? M * P * kLanes : 1];
  Ends<S, F, M, P> ends;
  ends.open(totals, integers);
  int64_t k = 0;
  for (int64_t left = in.depth / F::kGroup; left > 0; left -= kFrames.together) {
    const uint8_t* const frame = in.w;
    const int64_t begin = k;
    if constexpr (P == 1) {
      for (int line = 0; line < kFrames.header; line += 64) fetch_ahead<M>(frame + line);
    }
    in.w += kFrames.header;
    const int groups = static_cast<int>(std::min<int64_t>(left, kFrames.together));
#pragma GCC unroll 1
    for (int g = 0; g < (kFrames.together == 1 ? 1 : groups); ++g) {
      const uint8_t* const tail = in.w + kFrames.codes;
      if constexpr (P > 1) {
        in.template fetch<P>();
      } else {
#pragma GCC unroll 20
        for (int line = 0; line < kBytes; line += 64) fetch_ahead<M>(in.w + line);
      }
#pragma GCC unroll 1
      for (int part = 0; part < kParts; ++part, k += F::kSummed) {
        Sums<S, M, P> sums;
        sums.template start<kStarts, base_of(F::kFormat)>(tile_words<M>(in.starts, k / F::kSummed));
#pragma GCC unroll 1
        for (int block = 0; block < kBlocks; ++block) {
          add_steps<F, 0, kSteps>(in.w, in.panel_stride, tile_bytes<M>(in.x, k + block * kBlock),
                                  sums);
          in.w += kFrames.codes / (kParts * kBlocks);
        }
        ends.group(in, tail, frame, g, k, sums);
      }
      in.w = tail + kFrames.tail;
    }
    ends.frame(in, frame, begin);
  }
  if constexpr (!F::kScaled) ends.totals.store();
}

}  // namespace
}  // namespace edge
