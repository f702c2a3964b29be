// Codes in groups: the loop over a panel's groups, and what each format does at their ends. Many
// rows read a panel that was unpacked before, as frames of groups, each of bytes [k / 4][16][4] and
// vectors of 16 numbers:
//   no minimum    float scales
//   f16           float scales, float minima
//   zero          float scales, float(kLift - zero point)
//   byte scales   of rows by group as f16, multiplied with their factors; else int32 scales where
//   codes are wide, else both halves of a word; and behind a
//                 frame's groups, of q8, the minima of two groups as the halves of words; float
//                 factors of scales; of q8 those of minima, negated

namespace edge {
namespace {

template <class F>
constexpr HalfStarts kHalfStarts = starts_of(F::kFormat);
template <class F>
constexpr bool kStarted = kHalfStarts<F>.span > 0;

// k that are summed before they are widened, or, of wide codes, multiplied by the scale.
template <class F>
constexpr int kSpan = is_wide(F::kCode)                              ? F::kSummed
                      : F::kCode == Code::u5 || F::kCode == Code::i6 ? 16
                      : F::kSummed < 64                              ? F::kSummed
                                                                     : 64;
template <class F>
constexpr int kSpans = F::kSummed / kSpan<F>;  // at most 2

// What a zero point is subtracted from: sums that start from -8 * sum(x) are those of q - 8.
template <class F>
constexpr float kLift = kStarted<F> ? 8.0f : 0.0f;

template <class F>
constexpr bool kLifted = F::kScaled && F::kMinimum == MinimumType::q8;  // minima of bytes

template <class F>
constexpr int32_t kNumberBytes =
    F::kMinimum == MinimumType::none || kLifted<F> ? kVectorBytes : 2 * kVectorBytes;
template <class F>
constexpr int32_t kPairs = kLifted<F> ? F::kFrames.together / 2 : 0;  // of groups of a frame
template <class F>
constexpr int32_t kFrameBytes = kLifted<F>   ? (kPairs<F> + 2) * kVectorBytes
                                : F::kScaled ? kVectorBytes
                                             : 0;

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
inline __m256i widen_signed(const uint8_t* data) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(data)));
}
inline __m256i join_halves(__m256i low, __m256i high) {
  return _mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xAA);
}

inline __m256 negative(__m256 x) { return _mm256_xor_ps(x, _mm256_set1_ps(-0.0f)); }

// The numbers of rows 8 h .. 8 h + 7 of a group, whose tail in the file is `tail`, in the frame at
// `frame`, of which it is number `g`.
template <class F>
inline __m256 packed_scale(const uint8_t* tail, const uint8_t* frame, int g, int h) {
  if (F::kScale == ScaleType::q8 || F::kScale == ScaleType::s8) {
    const __m256i bytes = F::kScale == ScaleType::q8
                              ? widen_bytes(tail + 8 * h)
                              : widen_signed(frame + (2 + g) * kLanes + 8 * h);
    return _mm256_mul_ps(load_halves(frame + 16 * h), _mm256_cvtepi32_ps(bytes));
  }
  if (F::kScale != ScaleType::e8m0) return load_halves(tail + 16 * h);
  const __m256i bits = exponent_bits(widen_bytes(frame + g * kLanes + 8 * h));
  return _mm256_mul_ps(_mm256_set1_ps(0.5f), _mm256_castsi256_ps(bits));
}
template <class F>
inline __m256 packed_minimum(const uint8_t* tail, const uint8_t* frame, int g, int h) {
  if (F::kMinimum == MinimumType::f16) return load_halves(tail + 32 + 16 * h);
  if (F::kMinimum == MinimumType::q8) {
    const __m256 factor = negative(load_halves(frame + 32 + 16 * h));
    return _mm256_mul_ps(factor, _mm256_cvtepi32_ps(widen_bytes(tail + kLanes + 8 * h)));
  }
  const __m256i zeros = widen_bytes(frame + g * kLanes + 8 * h);
  return _mm256_sub_ps(_mm256_set1_ps(kLift<F>), _mm256_cvtepi32_ps(zeros));
}
template <class F>
inline __m256i packed_byte_scale(const uint8_t* tail, const uint8_t* frame, int g, int h) {
  const __m256i scales = F::kScale == ScaleType::s8 ? widen_signed(frame + (2 + g) * kLanes + 8 * h)
                                                    : widen_bytes(tail + 8 * h);
  return is_wide(F::kCode) ? scales : join_halves(scales, scales);
}
template <class F>
inline __m256i packed_minima(const uint8_t* frame, int pair, int h) {
  const uint8_t* tail = frame + F::kFrames.header + 2 * pair * F::kFrames.group_bytes() +
                        F::kFrames.codes + kLanes + 8 * h;
  return join_halves(widen_bytes(tail), widen_bytes(tail + F::kFrames.group_bytes()));
}
inline void store_next(uint8_t*& out, __m256i vector) {
  _mm256_store_si256(reinterpret_cast<__m256i*>(out), vector);
  out += 32;
}

template <class F, int s = 0>
inline void unpack_codes(const uint8_t* codes, uint8_t*& out) {
  if constexpr (4 * s < F::kGroup) {
    store_next(out, step_codes<F, s>(codes, 0));
    store_next(out, step_codes<F, s>(codes, 1));
    unpack_codes<F, s + 1>(codes, out);
  }
}

// Codes to bytes, numbers to vectors: once for all rows of x.
template <class F>
void unpack_groups(const uint8_t* packed, int64_t groups, uint8_t* out) {
  for (int64_t begin = 0; begin < groups; begin += F::kFrames.together) {
    const uint8_t* const frame = packed;
    packed += F::kFrames.header;
    for (int g = 0; g < F::kFrames.together && begin + g < groups; ++g) {
      unpack_codes<F>(packed, out);
      packed += F::kFrames.codes;
      for (int h = 0; h < 2; ++h) {
        store_next(out, F::kScaled ? packed_byte_scale<F>(packed, frame, g, h)
                                   : _mm256_castps_si256(packed_scale<F>(packed, frame, g, h)));
      }
      for (int h = 0; h < 2 && kNumberBytes<F> > kVectorBytes; ++h) {
        store_next(out, _mm256_castps_si256(packed_minimum<F>(packed, frame, g, h)));
      }
      packed += F::kFrames.tail;
    }
    if constexpr (F::kScaled) {
      for (int pair = 0; pair < kPairs<F>; ++pair) {
        for (int h = 0; h < 2; ++h) store_next(out, packed_minima<F>(frame, pair, h));
      }
      for (int h = 0; h < 2; ++h) {
        store_next(out, _mm256_castps_si256(load_halves(frame + 16 * h)));
      }
      for (int h = 0; h < 2 && kLifted<F>; ++h) {
        store_next(out, _mm256_castps_si256(negative(load_halves(frame + 32 + 16 * h))));
      }
    }
  }
}

// Where a tile kernel reads: weights of columns [k, end), and the others of the tile, from 0 on.
struct GroupOperands {
  const uint8_t* w;
  const int8_t* x;
  const int32_t* starts;
  const float* sums;
  const float* runs;
  int64_t k, end;
  const uint8_t* next;  // weights that are unpacked after these
  int32_t fetches;      // lines of them to ask for with each group
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

// Adds what was summed of a group to the totals. `sums` are those of the last span, `before` those
// of the span before that, widened, if there is one; `numbers` stand behind the group's codes.
template <class F, int M, bool Packed>
inline void end_group(const GroupOperands& in, const uint8_t* numbers, const uint8_t* frame, int g,
                      const __m256i (&sums)[M][2], const __m256i (&before)[M][2],
                      RowTotals<M>& totals) {
  const float* const x = tile_words<M>(in.sums, in.k / F::kSummed);
  const float* const runs = tile_words<M>(in.runs, in.k / kRun);
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    const __m256 scale =
        Packed ? packed_scale<F>(numbers, frame, g, h) : load_floats(numbers + 32 * h);
    __m256 minimum;
    if (F::kMinimum != MinimumType::none) {
      minimum = Packed ? packed_minimum<F>(numbers, frame, g, h)
                       : load_floats(numbers + kVectorBytes + 32 * h);
    }
    // NaN where the scale is infinite, as fma(scale, base + dot, -scale * base) is, of
    // vnni_groups.inl
    const __m256 nothing = _mm256_fmadd_ps(scale, _mm256_setzero_ps(), _mm256_setzero_ps());
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      __m256i dot = in_order(sums[m][h]);
      if (!is_wide(F::kCode)) dot = _mm256_madd_epi16(dot, _mm256_set1_epi16(1));
      if (kSpans<F> > 1) dot = _mm256_add_epi32(dot, before[m][h]);
      if (kHalfStarts<F>.lowered) {
        dot = _mm256_add_epi32(dot, _mm256_set1_epi32(2 * kSpanOffset * kSpans<F>));
      }
      __m256 value = _mm256_cvtepi32_ps(dot);
      const __m256 total = totals.get(m, h);
      if (F::kMinimum == MinimumType::zero) {  // integers below 2^24, exact in floats
        value = _mm256_fmadd_ps(minimum, _mm256_broadcast_ss(x + m * kLineWords), value);
      }
      __m256 part = _mm256_fmadd_ps(scale, value, F::kByGroup ? nothing : total);
      if (is_lifted(F::kFormat)) {
        part = _mm256_fmadd_ps(minimum, _mm256_broadcast_ss(x + m * kLineWords), part);
      }
      if (F::kByGroup) {
        part = _mm256_fmadd_ps(_mm256_broadcast_ss(runs + m * kLineWords), part, total);
      }
      totals.set(m, h, part);
    }
  }
}

// Adds a span of a group with a byte scale to the integers `scaled`, or starts them. Of halves the
// scale multiplies where they are added: 2 * 2^15 * 255 fits 32 bits.
template <class F, int M, bool Packed>
inline void end_span(const uint8_t* numbers, const uint8_t* frame, int g, bool first,
                     const __m256i (&sums)[M][2], int32_t (&scaled)[M * kLanes]) {
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    const __m256i scale =
        Packed ? packed_byte_scale<F>(numbers, frame, g, h) : load_bytes(numbers + 32 * h);
    __m256i back;  // of what the sums were lowered by
    if (kHalfStarts<F>.lowered) {
      back = _mm256_madd_epi16(scale, _mm256_set1_epi16(kSpanOffset));
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      __m256i* to = reinterpret_cast<__m256i*>(scaled + m * kLanes + 8 * h);
      const __m256i sum = in_order(sums[m][h]);
      __m256i dot =
          is_wide(F::kCode) ? _mm256_mullo_epi32(sum, scale) : _mm256_madd_epi16(sum, scale);
      if (kHalfStarts<F>.lowered) dot = _mm256_add_epi32(dot, back);
      _mm256_store_si256(to, first ? dot : _mm256_add_epi32(load_bytes(to), dot));
    }
  }
}

// Adds a frame of byte scales: the scaled sums, and of q8 the sums of x by the minima, two groups
// at a time. `numbers` stand behind its last group.
template <class F, int M, bool Packed>
inline void end_frame(const GroupOperands& in, const uint8_t* frame, int64_t begin,
                      const int32_t (&scaled)[M * kLanes], RowTotals<M>& totals) {
  const float* const x = tile_words<M>(in.sums, begin / (2 * F::kGroup));
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    const uint8_t* numbers = in.w + 32 * h;  // unpacked
    const uint8_t* factors = numbers + kPairs<F> * kVectorBytes;
    const __m256 factor = Packed ? load_halves(frame + 16 * h) : load_floats(factors);
    __m256i minima[kLifted<F> ? kPairs<F> : 1];
    __m256 minimum_factor;
    if (kLifted<F>) {
#pragma GCC unroll 8
      for (int pair = 0; pair < kPairs<F>; ++pair) {
        minima[pair] =
            Packed ? packed_minima<F>(frame, pair, h) : load_bytes(numbers + pair * kVectorBytes);
      }
      minimum_factor =
          Packed ? negative(load_halves(frame + 32 + 16 * h)) : load_floats(factors + kVectorBytes);
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const __m256 sum = _mm256_cvtepi32_ps(load_bytes(scaled + m * kLanes + 8 * h));
      __m256 total = _mm256_fmadd_ps(factor, sum, totals.get(m, h));
      if (kLifted<F>) {
        __m256i lifted = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (int pair = 0; pair < kPairs<F>; ++pair) {
          const __m256i sums = _mm256_castps_si256(_mm256_broadcast_ss(x + m * kLineWords + pair));
          lifted = _mm256_add_epi32(lifted, _mm256_madd_epi16(minima[pair], sums));
        }
        total = _mm256_fmadd_ps(minimum_factor, _mm256_cvtepi32_ps(lifted), total);
      }
      totals.set(m, h, total);
    }
  }
}

// Of the span that begins at column `k`.
template <class F, int M>
inline void start_sums(const GroupOperands& in, int64_t k, __m256i (&sums)[M][2]) {
  const int32_t* const starts = tile_words<M>(in.starts, k / kSpan<F>);
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    sums[m][0] = sums[m][1] = _mm256_set1_epi32(kStarted<F> ? starts[m * kLineWords] : 0);
  }
}

// Adds the groups to totals[M][16]. `Packed`: weights as in the file; else as unpack_groups leaves
// them.
template <class F, int M, bool Packed>
EDGE_TILE_KERNEL void add_groups(GroupOperands in, float* memory) {
  constexpr Frames kFrames = F::kFrames;
  constexpr int kCodes = Packed ? kFrames.codes : F::kGroup * kLanes;
  constexpr int kSteps = kSpan<F> / 4;
  constexpr int kParts = F::kGroup / F::kSummed;
  RowTotals<M> totals(memory);
  for (int64_t left = (in.end - in.k) / F::kGroup; left > 0; left -= kFrames.together) {
    const uint8_t* const frame = in.w;
    const int64_t begin = in.k;
    if (Packed) {
      for (int line = 0; line < kFrames.header; line += 64) fetch_ahead<M>(frame + line);
      in.w += kFrames.header;
    }
    alignas(32) int32_t scaled[M * kLanes];
    const int groups = static_cast<int>(std::min<int64_t>(left, kFrames.together));
#pragma GCC unroll 1
    for (int g = 0; g < (kFrames.together == 1 ? 1 : groups); ++g) {
      if (Packed) {
        for (int line = 0; line < kCodes; line += 64) fetch_ahead<M>(in.w + line);
      } else {
        for (int32_t i = 0; i < in.fetches; ++i, in.next += kLineBytes) {
          __builtin_prefetch(in.next, 0, 2);
        }
      }
      const uint8_t* const numbers = in.w + kCodes;
#pragma GCC unroll 1
      for (int part = 0; part < kParts; ++part) {
        __m256i sums[M][2], before[M][2];
        start_sums<F, M>(in, in.k, sums);
        const int8_t* const x = tile_bytes<M>(in.x, in.k);
        add_steps<F, Packed, 0, kSteps>(in.w, x, sums);
        if constexpr (kSpans<F> > 1) {
          if constexpr (F::kScaled) {
            end_span<F, M, Packed>(numbers, frame, g, g == 0, sums, scaled);
          } else {
#pragma GCC unroll 8
            for (int m = 0; m < M; ++m) {
              before[m][0] = _mm256_madd_epi16(sums[m][0], _mm256_set1_epi16(1));
              before[m][1] = _mm256_madd_epi16(sums[m][1], _mm256_set1_epi16(1));
            }
          }
          start_sums<F, M>(in, in.k + kSpan<F>, sums);
          const int8_t* const next = tile_bytes<M>(in.x, in.k + kSpan<F>);
          add_steps<F, Packed, kSteps, 2 * kSteps>(in.w, next - 4 * kSteps, sums);
        }
        if constexpr (F::kScaled) {
          end_span<F, M, Packed>(numbers, frame, g, g == 0 && kSpans<F> == 1, sums, scaled);
        } else {
          end_group<F, M, Packed>(in, numbers, frame, g, sums, before, totals);
        }
        in.w += kCodes / kParts;
        in.k += F::kSummed;
      }
      in.w = numbers + (Packed ? kFrames.tail : kNumberBytes<F>);
    }
    if constexpr (F::kScaled) {
      end_frame<F, M, Packed>(in, frame, begin, scaled, totals);
      if (!Packed) in.w += kFrameBytes<F>;
    }
  }
  totals.store();
}

}  // namespace
}  // namespace edge
