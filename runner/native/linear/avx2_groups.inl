// 4-bit codes in groups: the loop over a panel's groups, and what each format does at their ends.
// Many rows read a panel that was unpacked before, as frames of groups, each of bytes [k /
// 4][16][4] and vectors of 16 numbers:
//   none     float scales
//   f16      float scales, float minima
//   zero     float scales, float(kLift - zero point)
//   q8       scales, as both halves of a word; and behind a frame's groups the minima of two groups
//            as the halves of words, float factors of scales, and of minima, negated

namespace edge {
namespace {

template <class F>
constexpr int kSpan = F::kGroup < 64 ? F::kGroup : 64;  // k that are summed in 16 bits
template <class F>
constexpr int kSpans = F::kGroup / kSpan<F>;  // at most 2

template <class F>
constexpr bool kStarted = F::kMinimum == MinimumType::none || F::kGroup > kBlock;

// What a zero point is subtracted from: sums that start from -8 * sum(x) are those of q - 8.
template <class F>
constexpr float kLift = kStarted<F> ? 8.0f : 0.0f;

template <class F>
constexpr bool kSuperScales = F::kMinimum == MinimumType::q8;

template <class F>
constexpr int32_t kNumberBytes =
    F::kMinimum == MinimumType::f16 || F::kMinimum == MinimumType::zero ? 2 * kVectorBytes
                                                                        : kVectorBytes;
template <class F>
constexpr int32_t kPairs = kSuperScales<F> ? F::kFrames.together / 2 : 0;  // of groups of a frame
template <class F>
constexpr int32_t kFrameBytes = kSuperScales<F> ? (kPairs<F> + 2) * kVectorBytes : 0;

template <class F>
constexpr int64_t unpacked_bytes(int64_t groups) {
  return groups * (F::kGroup * kLanes + kNumberBytes<F>)+groups / F::kFrames.together *
         kFrameBytes<F>;
}

inline __m256 load_halves(const uint8_t* data) {
  return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(data)));
}
inline __m256 load_floats(const uint8_t* data) {
  return _mm256_load_ps(reinterpret_cast<const float*>(data));
}
inline __m256i widen_bytes(const uint8_t* data) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(data)));
}
inline __m256i join_halves(__m256i low, __m256i high) {
  return _mm256_or_si256(low, _mm256_slli_epi32(high, 16));
}

// The numbers of rows 8 h .. 8 h + 7 of a group, whose tail in the file is `tail`, in the frame at
// `frame`, of which it is number `g`.
template <class F>
inline __m256 packed_scale(const uint8_t* tail, int h) {
  return load_halves(tail + 16 * h);
}
template <class F>
inline __m256 packed_minimum(const uint8_t* tail, const uint8_t* frame, int g, int h) {
  if (F::kMinimum == MinimumType::f16) return load_halves(tail + 32 + 16 * h);
  const __m256i zeros = widen_bytes(frame + g * kLanes + 8 * h);
  return _mm256_sub_ps(_mm256_set1_ps(kLift<F>), _mm256_cvtepi32_ps(zeros));
}
inline __m256i packed_super_scale(const uint8_t* tail, int h) {
  const __m256i scales = widen_bytes(tail + 8 * h);
  return join_halves(scales, scales);
}
template <class F>
inline __m256i packed_minima(const uint8_t* frame, int pair, int h) {
  const uint8_t* tail = frame + F::kFrames.header + 2 * pair * F::kFrames.group_bytes() +
                        F::kFrames.codes() + kLanes + 8 * h;
  return join_halves(widen_bytes(tail), widen_bytes(tail + F::kFrames.group_bytes()));
}
inline __m256 negative(__m256 x) { return _mm256_xor_ps(x, _mm256_set1_ps(-0.0f)); }

// Nibbles to bytes, numbers to vectors: once for all rows of x.
template <class F>
void unpack_groups(const uint8_t* packed, int64_t groups, uint8_t* out) {
  const __m256i mask = _mm256_set1_epi8(15);
  const auto store = [&out](__m256i vector) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(out), vector);
    out += 32;
  };
  for (int64_t begin = 0; begin < groups; begin += F::kFrames.together) {
    const uint8_t* const frame = packed;
    packed += F::kFrames.header;
    for (int g = 0; g < F::kFrames.together && begin + g < groups; ++g) {
      for (int c = 0; c < F::kGroup / 8; ++c, packed += 64) {
        const __m256i pairs0 = load_bytes(packed), pairs1 = load_bytes(packed + 32);
        store(_mm256_and_si256(pairs0, mask));
        store(_mm256_and_si256(pairs1, mask));
        store(_mm256_and_si256(_mm256_srli_epi16(pairs0, 4), mask));
        store(_mm256_and_si256(_mm256_srli_epi16(pairs1, 4), mask));
      }
      for (int h = 0; h < 2; ++h) {
        store(kSuperScales<F> ? packed_super_scale(packed, h)
                              : _mm256_castps_si256(packed_scale<F>(packed, h)));
      }
      for (int h = 0; h < 2 && kNumberBytes<F> > kVectorBytes; ++h) {
        store(_mm256_castps_si256(packed_minimum<F>(packed, frame, g, h)));
      }
      packed += F::kFrames.tail;
    }
    if constexpr (kSuperScales<F>) {
      for (int pair = 0; pair < kPairs<F>; ++pair) {
        for (int h = 0; h < 2; ++h) store(packed_minima<F>(frame, pair, h));
      }
      for (int h = 0; h < 2; ++h) store(_mm256_castps_si256(load_halves(frame + 16 * h)));
      for (int h = 0; h < 2; ++h) {
        store(_mm256_castps_si256(negative(load_halves(frame + 32 + 16 * h))));
      }
    }
  }
}

// Where a tile kernel reads: `x`, `starts` and `sums` of the tile, weights from the same k on.
struct GroupOperands {
  const uint8_t* w;
  const int8_t* x;
  const int32_t* starts;
  const float* sums;
  int64_t groups;
};

// The totals of a tile: one row keeps them in registers, more rows need those for their sums.
template <int M>
struct RowTotals {
  float* memory;  // [M][16]
  __m256 own[2];

  explicit RowTotals(float* totals) : memory(totals) {
    if (M == 1) own[0] = _mm256_load_ps(memory), own[1] = _mm256_load_ps(memory + 8);
  }
  __m256 get(int m, int h) const {
    return M == 1 ? own[h] : _mm256_load_ps(memory + m * kLanes + 8 * h);
  }
  void set(int m, int h, __m256 value) {
    if (M == 1) {
      own[h] = value;
    } else {
      _mm256_store_ps(memory + m * kLanes + 8 * h, value);
    }
  }
  void store() const {
    if (M == 1) _mm256_store_ps(memory, own[0]), _mm256_store_ps(memory + 8, own[1]);
  }
};

// Pins where a sum is used, because gcc otherwise widens all sums of a tile ahead and spills them.
inline __m256i in_order(__m256i sums) {
  asm volatile("" : "+x"(sums));
  return sums;
}

// Adds a group, whose sums in 16-bit halves are `sums` over its last span of k, and widened
// `before` over the span before that, if there is one. Of byte scales into the integers `scaled`.
template <class F, int M, bool Packed>
inline void end_group(const GroupOperands& in, const uint8_t* frame, int g,
                      const __m256i (&sums)[M][2], const __m256i (&before)[M][2],
                      int32_t (&scaled)[M * kLanes], RowTotals<M>& totals) {
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    if constexpr (kSuperScales<F>) {
      // Scales multiply where the halves are added: 2 * 30720 * 255 fits 32 bits.
      const __m256i scale = Packed ? packed_super_scale(in.w, h) : load_bytes(in.w + 32 * h);
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        __m256i* to = reinterpret_cast<__m256i*>(scaled + m * kLanes + 8 * h);
        const __m256i dot = _mm256_madd_epi16(in_order(sums[m][h]), scale);
        _mm256_store_si256(to, g ? _mm256_add_epi32(load_bytes(to), dot) : dot);
      }
    } else {
      const __m256 scale = Packed ? packed_scale<F>(in.w, h) : load_floats(in.w + 32 * h);
      __m256 minimum;
      if (F::kMinimum != MinimumType::none) {
        minimum = Packed ? packed_minimum<F>(in.w, frame, g, h)
                         : load_floats(in.w + kVectorBytes + 32 * h);
      }
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) {
        __m256i dot = _mm256_madd_epi16(in_order(sums[m][h]), _mm256_set1_epi16(1));
        if (kSpans<F> > 1) dot = _mm256_add_epi32(dot, before[m][h]);
        if (kStarted<F> && kSpan<F> > kBlock) {
          dot = _mm256_add_epi32(dot, _mm256_set1_epi32(2 * kSpanOffset * kSpans<F>));
        }
        __m256 value = _mm256_cvtepi32_ps(dot), total = totals.get(m, h);
        if (F::kMinimum == MinimumType::zero) {  // integers below 2^24, exact in floats
          value = _mm256_fmadd_ps(minimum, _mm256_broadcast_ss(in.sums + m), value);
        }
        total = _mm256_fmadd_ps(scale, value, total);
        if (F::kMinimum == MinimumType::f16) {
          total = _mm256_fmadd_ps(minimum, _mm256_broadcast_ss(in.sums + m), total);
        }
        totals.set(m, h, total);
      }
    }
  }
}

// Adds a frame of byte scales: the scaled sums, and the sums of x by the minima, two groups at a
// time.
template <class F, int M, bool Packed>
inline void end_frame(const GroupOperands& in, const uint8_t* frame,
                      const int32_t (&scaled)[M * kLanes], RowTotals<M>& totals) {
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    const uint8_t* numbers = in.w + 32 * h;  // unpacked
    __m256i minima[kPairs<F>];
#pragma GCC unroll 8
    for (int pair = 0; pair < kPairs<F>; ++pair) {
      minima[pair] =
          Packed ? packed_minima<F>(frame, pair, h) : load_bytes(numbers + pair * kVectorBytes);
    }
    const uint8_t* factors = numbers + kPairs<F> * kVectorBytes;
    const __m256 factor = Packed ? load_halves(frame + 16 * h) : load_floats(factors);
    const __m256 minimum_factor =
        Packed ? negative(load_halves(frame + 32 + 16 * h)) : load_floats(factors + kVectorBytes);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      __m256i lifted = _mm256_setzero_si256();
#pragma GCC unroll 8
      for (int pair = 0; pair < kPairs<F>; ++pair) {
        const __m256i sums = _mm256_castps_si256(_mm256_broadcast_ss(in.sums + pair * M + m));
        lifted = _mm256_add_epi32(lifted, _mm256_madd_epi16(minima[pair], sums));
      }
      const __m256 sum = _mm256_cvtepi32_ps(load_bytes(scaled + m * kLanes + 8 * h));
      const __m256 total = _mm256_fmadd_ps(factor, sum, totals.get(m, h));
      totals.set(m, h, _mm256_fmadd_ps(minimum_factor, _mm256_cvtepi32_ps(lifted), total));
    }
  }
}

// Adds the groups to totals[M][16]. `Packed`: weights as in the file; else as unpack_groups leaves
// them.
template <class F, int M, bool Packed>
EDGE_TILE_KERNEL void add_groups(GroupOperands in, float* memory) {
  constexpr Frames kFrames = F::kFrames;
  constexpr int kSpanBytes = Packed ? kSpan<F> * 8 : kSpan<F> * kLanes;
  RowTotals<M> totals(memory);
  for (int64_t left = in.groups; left > 0; left -= kFrames.together) {
    const uint8_t* const frame = in.w;
    if (Packed && kFrames.header > 0) fetch_ahead<M>(frame);
    if (Packed) in.w += kFrames.header;
    alignas(32) int32_t scaled[M * kLanes];
    const int groups = static_cast<int>(std::min<int64_t>(left, kFrames.together));
#pragma GCC unroll 1
    for (int g = 0; g < (kFrames.together == 1 ? 1 : groups); ++g) {
      __m256i before[M][2];
#pragma GCC unroll 2
      for (int span = 0; span < kSpans<F>; ++span) {
        __m256i sums[M][2];
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
          sums[m][0] = sums[m][1] = _mm256_set1_epi32(kStarted<F> ? in.starts[m] : 0);
        }
        if (Packed) {
          for (int line = 0; line < kSpanBytes; line += 64) fetch_ahead<M>(in.w + line);
          sum_packed<M, kSpan<F> / kBlock>(in.w, in.x, sums);
        } else {
          sum_bytes<M, kSpan<F> / kBlock>(in.w, in.x, sums);
        }
        in.w += kSpanBytes;
        in.x += kSpan<F> * M;
        if (kStarted<F>) in.starts += M;
        if (span + 1 == kSpans<F>) {
          end_group<F, M, Packed>(in, frame, g, sums, before, scaled, totals);
          continue;
        }
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
          before[m][0] = _mm256_madd_epi16(sums[m][0], _mm256_set1_epi16(1));
          before[m][1] = _mm256_madd_epi16(sums[m][1], _mm256_set1_epi16(1));
        }
      }
      in.w += Packed ? kFrames.tail : kNumberBytes<F>;
      if (F::kMinimum != MinimumType::none && !kSuperScales<F>) in.sums += M;
    }
    if constexpr (kSuperScales<F>) {
      end_frame<F, M, Packed>(in, frame, scaled, totals);
      in.sums += kPairs<F> * M;
      if (!Packed) in.w += kFrameBytes<F>;
    }
  }
  totals.store();
}

}  // namespace
}  // namespace edge
