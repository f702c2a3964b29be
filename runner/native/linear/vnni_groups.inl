// 4-bit codes in groups: the loop over a panel's groups, and what each format does at their ends.

namespace edge {
namespace {

// Adds 32 k of packed nibbles. The two halves of a byte one after the other, so that few registers
// hold weights.
template <class S, int M, int P>
inline void add_nibbles(const uint8_t* w, int64_t panel_stride, const int8_t* x,
                        Sums<S, M, P>& sums) {
  using Words = typename S::Words;
#pragma GCC unroll 4
  for (int c = 0; c < kBlock / 8; ++c) {
    Words part[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) part[p] = Words::load(w + p * panel_stride + 64 * c).low_nibbles();
    sums.add(2 * c, part, x + 2 * c * M * 4);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) part[p] = Words::load(w + p * panel_stride + 64 * c).high_nibbles();
    sums.add(2 * c + 1, part, x + (2 * c + 1) * M * 4);
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

// What a format does with the sums of a group and at the end of a frame. `in` stands at the group's
// tail, or behind the frame's last group; `frame` is its header.
template <class S, class F, int M, int P, MinimumType N = F::kMinimum>
struct Ends;

template <class S, class F, int M, int P>
struct Ends<S, F, M, P, MinimumType::none> {
  static constexpr bool kStarts = true;
  Totals<S, M, P> totals;

  void open(float* memory, int32_t*) {
    totals.memory = memory;
    totals.fill(S::Lanes::broadcast(0.0f));
  }
  void group(const VnniOperands& in, const uint8_t*, int, const Sums<S, M, P>& sums) {
    using V = typename S::Lanes;
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const V scales = V::load(halves(in.w + p * in.panel_stride));
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        totals.set(m, p, fma(scales, sums.lanes(m, p), totals.get(m, p)));
      }
    }
  }
  void frame(const VnniOperands&, const uint8_t*) {}
};

template <class S, class F, int M, int P>
struct Ends<S, F, M, P, MinimumType::f16> : Ends<S, F, M, P, MinimumType::none> {
  static constexpr bool kStarts = false;

  void group(VnniOperands& in, const uint8_t*, int, const Sums<S, M, P>& sums) {
    using V = typename S::Lanes;
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const uint8_t* tail = in.w + p * in.panel_stride;
      const V scales = V::load(halves(tail)), minima = V::load(halves(tail) + kLanes);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const V scaled = fma(scales, sums.lanes(m, p), this->totals.get(m, p));
        this->totals.set(m, p, fma(minima, V::broadcast(in.sums[m]), scaled));
      }
    }
    in.sums += M;
  }
};

// All but the last operation is on integers below 2^24, which floats hold exactly.
template <class S, class F, int M, int P>
struct Ends<S, F, M, P, MinimumType::zero> : Ends<S, F, M, P, MinimumType::none> {
  static constexpr bool kStarts = false;

  void group(VnniOperands& in, const uint8_t* frame, int g, const Sums<S, M, P>& sums) {
    using V = typename S::Lanes;
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const V scales = V::load(halves(in.w + p * in.panel_stride));
      const uint8_t* bytes = frame + p * in.panel_stride + g * kLanes;
      const V zeros = -S::Words::widen(bytes).lanes();
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const V value = fma(zeros, V::broadcast(in.sums[m]), sums.lanes(m, p));
        this->totals.set(m, p, fma(scales, value, this->totals.get(m, p)));
      }
    }
    in.sums += M;
  }
};

// Byte scales and minima: integers up to the end of a frame (scalar.cpp says why they fit).
// vpdpwssd adds the sums of x over two groups times their minima, at most 2 * 255 * 2^12.
template <class S, class F, int M, int P>
struct Ends<S, F, M, P, MinimumType::q8> {
  using V = typename S::Lanes;
  using Words = typename S::Words;
  static constexpr bool kStarts = false;
  static constexpr int kPairs = F::kFrames.together / 2;
  float* totals;
  Tile<Words, int32_t, M, P, (M * P <= S::kTotals)> scaled;

  void open(float* to, int32_t* integers) {
    totals = to;
    for (int i = 0; i < M * P; ++i) V::broadcast(0.0f).store(totals + i * kLanes);
    scaled.memory = integers;
    scaled.fill(Words::broadcast(0));
  }
  void group(const VnniOperands& in, const uint8_t*, int, const Sums<S, M, P>& sums) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const Words scales = Words::widen(in.w + p * in.panel_stride);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        Words total = scaled.get(m, p);
        total.add_scaled(sums.of(m, p), scales);
        scaled.set(m, p, total);
      }
    }
  }
  void frame(VnniOperands& in, const uint8_t* frame) {
    constexpr int kTail = F::kFrames.header + F::kFrames.codes();
    constexpr int kStep = 2 * F::kFrames.group_bytes();
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const uint8_t* panel = frame + p * in.panel_stride;
      Words minima[kPairs];
#pragma GCC unroll 4
      for (int j = 0; j < kPairs; ++j) {
        const uint8_t *even = panel + kTail + j * kStep, *odd = even + kStep / 2;
        minima[j] = Words::widen(even + kLanes) | Words::widen(odd + kLanes).upper();
      }
      const V factors = V::load(halves(panel)), minimum_factors = -V::load(halves(panel) + kLanes);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        Words lifted = Words::broadcast(0);
#pragma GCC unroll 4
        for (int j = 0; j < kPairs; ++j) {
          lifted.add_pairs(Words::repeat(in.sums + j * M + m), minima[j]);
        }
        float* to = totals + (m * P + p) * kLanes;
        const V y = fma(factors, scaled.get(m, p).lanes(), V::load(to));
        fma(minimum_factors, lifted.lanes(), y).store(to);
      }
    }
    scaled.fill(Words::broadcast(0));
    in.sums += kPairs * M;
  }
};

// totals[M][P][16] of a tile of M rows and P panels.
template <class S, class F, int M, int P>
EDGE_TILE_KERNEL void total_groups(VnniOperands in, float* totals) {
  constexpr int kBytes = F::kFrames.group_bytes();
  constexpr Frames kFrames = F::kFrames;
  // Beside `ends`: in it, what points to it would keep all of it out of registers.
  alignas(64) int32_t integers[F::kMinimum == MinimumType::q8 ? M * P * kLanes : 1];
  Ends<S, F, M, P> ends;
  ends.open(totals, integers);
  for (int64_t left = in.depth / F::kGroup; left > 0; left -= kFrames.together) {
    const uint8_t* const frame = in.w;
    if constexpr (P == 1 && kFrames.header > 0) fetch_ahead<M>(frame);
    in.w += kFrames.header;
    const int groups = static_cast<int>(std::min<int64_t>(left, kFrames.together));
#pragma GCC unroll 1
    for (int g = 0; g < (kFrames.together == 1 ? 1 : groups); ++g) {
      Sums<S, M, P> sums;
      sums.template start<Ends<S, F, M, P>::kStarts>(in.starts);
      if constexpr (P == 1) {
#pragma GCC unroll 20
        for (int line = 0; line < kBytes; line += 64) fetch_ahead<M>(in.w + line);
      }
#pragma GCC unroll 1
      for (int block = 0; block < F::kGroup / kBlock; ++block) {
        add_nibbles<S, M, P>(in.w + block * kInt4BlockBytes, in.panel_stride,
                             in.x + block * kBlock * M, sums);
      }
      in.w += kFrames.codes();
      ends.group(in, frame, g, sums);
      in.w += kFrames.tail;
      in.x += F::kGroup * M;
      in.starts += M;
    }
    ends.frame(in, frame);
  }
  if constexpr (F::kMinimum != MinimumType::q8) ends.totals.store();
}

}  // namespace
}  // namespace edge
