// Quantizing over virtual lanes; quantize.h has the contract. Included once per instruction set.
#include <cmath>
#include <limits>

#include "quantize/quantize.h"
#include "simd/half.h"

namespace edge {
namespace {

constexpr int kVectorLanes = 16, kMostVectors = 8;  // of a group of 128
constexpr float kToInteger = 12582912.0f;           // 1.5 * 2^23: adding it rounds, halves to even
constexpr float kSmallestHalf = 0x1p-24f, kLargestHalf = 65504.0f;
constexpr int kRounds = 20, kSearchRounds = 6;  // of least squares, from one start or from many

// Sum of N vectors, by halves.
template <int N, class V>
inline float tree_sum(V* values) {
  for (int half = N / 2; half >= 1; half /= 2) {
    for (int i = 0; i < half; ++i) values[i] = values[i] + values[i + half];
  }
  return sum(values[0]);
}

// Rounded to the nearest integer of [low, high]; clamped first, so that it fits kToInteger's range.
template <class V>
inline V to_integer(V value, V low, V high) {
  V magic = V::broadcast(kToInteger);
  return (max(min(value, high), low) + magic) - magic;
}

inline float as_half(float value) {
  float rounded = float_from_half(half_from_float(value));
  return rounded == 0.0f ? kSmallestHalf : rounded;
}

// N vectors of a group of signed codes of `Bits`, and how much an error in each column counts.
template <int Bits, int N, class V, bool Counted>
struct Group {
  static constexpr float kSteps = 1 << (Bits - 1);  // below 0

  V w[N], column[N];

  Group(const float* from, const float* columns) {
    for (int i = 0; i < N; ++i) {
      w[i] = V::load(from + kVectorLanes * i);
      if constexpr (Counted) column[i] = V::load(columns + kVectorLanes * i);
    }
  }

  V code(int i, float inverse) const {
    return to_integer(w[i] * V::broadcast(inverse), V::broadcast(-kSteps),
                      V::broadcast(kSteps - 1.0f));
  }

  float energy() const {
    V squares[N];
    for (int i = 0; i < N; ++i) squares[i] = w[i] * w[i];
    return tree_sum<N>(squares);
  }

  // The squared error that a scale leaves; `counted`: with what each column counts.
  template <bool counted = Counted>
  float error(float scale) const {
    float inverse = 1.0f / scale;
    V squares[N];
    for (int i = 0; i < N; ++i) {
      V difference = w[i] - code(i, inverse) * V::broadcast(scale);
      squares[i] = difference * difference;
      if constexpr (counted) squares[i] = squares[i] * column[i];
    }
    return tree_sum<N>(squares);
  }

  // The scale of least squares for the codes that `scale` gives.
  float refit(float scale) const {
    float inverse = 1.0f / scale;
    V squares[N], products[N];
    for (int i = 0; i < N; ++i) {
      V q = code(i, inverse);
      squares[i] = q * q;
      products[i] = w[i] * q;
      if constexpr (Counted) {
        squares[i] = squares[i] * column[i];
        products[i] = products[i] * column[i];
      }
    }
    float divisor = tree_sum<N>(squares);
    return divisor > 0.0f ? tree_sum<N>(products) / divisor : scale;
  }

  // What `start` becomes by least squares, as float16 has it.
  float settled(float start, int rounds) const {
    float scale = start;
    for (int round = 0; round < rounds; ++round) {
      float better = refit(scale);
      if (better == scale) break;
      scale = better;
    }
    if (scale > kLargestHalf) scale = kLargestHalf;
    if (scale < -kLargestHalf) scale = -kLargestHalf;
    return as_half(scale);
  }

  float refined(float first, float second) const {
    float error_first = error(first), error_second = error(second);
    float start = error_second < error_first ? second : first;
    float least = error_second < error_first ? error_second : error_first;
    float scale = settled(start, kRounds);
    return error(scale) < least ? scale : start;
  }

  // The best of `first` and `second`, of these made smaller, and of what each becomes.
  float searched(float first, float second) const {
    float best = first, least = error(first);
    const auto consider = [&](float scale) {
      float left = error(scale);
      if (left < least) least = left, best = scale;
    };
    const float parts[] = {1.0f, 0.9f, 0.8f, 0.7f}, wholes[] = {first, second};
    for (float part : parts) {
      for (float whole : wholes) {
        float start = as_half(whole * part);
        consider(start);
        consider(settled(start, kSearchRounds));
      }
    }
    return best;
  }

  // Returns false where float16 cannot hold the scale.
  bool scale(int32_t rule, float* result) const {
    V high = w[0], low = w[0];
    for (int i = 1; i < N; ++i) {
      high = max(high, w[i]);
      low = min(low, w[i]);
    }
    float highest = max(high), lowest = max(-low);  // the latter negated
    float magnitude = highest > lowest ? highest : lowest;
    float affine = magnitude / (kSteps - 0.5f);
    float with_sign = (lowest >= highest ? magnitude : -magnitude) / kSteps;
    float largest = rule == kSigned ? with_sign : affine;
    if (!(std::fabs(largest) <= kLargestHalf)) return false;
    if (rule == kAffine) {
      *result = as_half(affine);
    } else if (rule == kSigned) {
      *result = as_half(with_sign);
    } else if constexpr (Counted) {
      *result = searched(as_half(with_sign), as_half(affine));
    } else {
      *result = refined(as_half(with_sign), as_half(affine));
    }
    return true;
  }
};

template <int Bits, int N, class V, bool Counted>
bool group_rows(const float* rows, int64_t n, int32_t k, int32_t rule, const float* columns,
                int8_t* codes, float* scales, double* signal, double* noise) {
  constexpr int32_t kSize = N * kVectorLanes;
  for (int64_t row = 0; row < n; ++row) {
    double energy = 0.0, lost = 0.0;
    for (int32_t begin = 0; begin < k; begin += kSize) {
      Group<Bits, N, V, Counted> group(rows, Counted ? columns + begin : nullptr);
      if (!group.scale(rule, scales)) return false;
      float inverse = 1.0f / *scales;
      for (int i = 0; i < N; ++i) group.code(i, inverse).store(codes + kVectorLanes * i);
      energy += double(group.energy());
      lost += double(group.template error<false>(*scales));
      rows += kSize;
      codes += kSize;
      ++scales;
    }
    signal[row] = energy;
    noise[row] = lost;
  }
  return true;
}

template <int Bits, class V, bool Counted>
bool quantize_bits(const float* rows, int64_t n, int32_t k, int32_t group, int32_t rule,
                   const float* columns, int8_t* codes, float* scales, double* signal,
                   double* noise) {
  const auto quantize = group == 32   ? group_rows<Bits, 2, V, Counted>
                        : group == 64 ? group_rows<Bits, 4, V, Counted>
                                      : group_rows<Bits, kMostVectors, V, Counted>;
  return quantize(rows, n, k, rule, columns, codes, scales, signal, noise);
}

template <class V>
bool quantize_groups(const float* rows, int64_t n, int32_t k, int32_t bits, int32_t group,
                     int32_t rule, const float* columns, int8_t* codes, float* scales,
                     double* signal, double* noise) {
  const auto quantize = columns == nullptr
                            ? (bits == 4 ? quantize_bits<4, V, false> : quantize_bits<6, V, false>)
                            : (bits == 4 ? quantize_bits<4, V, true> : quantize_bits<6, V, true>);
  return quantize(rows, n, k, group, rule, columns, codes, scales, signal, noise);
}

template <class V>
void quantize_int8(const float* rows, int64_t n, int32_t k, int8_t* codes, float* scales,
                   double* signal, double* noise) {
  const V low = V::broadcast(-127.0f), high = V::broadcast(127.0f);
  for (int64_t row = 0; row < n; ++row, rows += k, codes += k) {
    V largest = V::broadcast(0.0f);
    for (int32_t i = 0; i < k; i += kVectorLanes) {
      int32_t count = k - i < kVectorLanes ? k - i : kVectorLanes;
      largest = max(largest, abs(V::load_first(rows + i, count)));
    }
    float scale = max(largest) / 127.0f;
    if (scale < std::numeric_limits<float>::min()) scale = std::numeric_limits<float>::min();
    const V factor = V::broadcast(scale), inverse = V::broadcast(1.0f / scale);
    double energy = 0.0, lost = 0.0;
    for (int32_t i = 0; i < k; i += kVectorLanes) {
      int32_t count = k - i < kVectorLanes ? k - i : kVectorLanes;
      V w = V::load_first(rows + i, count);
      V q = to_integer(w * inverse, low, high);
      if (count == kVectorLanes) {
        q.store(codes + i);
      } else {
        int8_t rest[kVectorLanes];
        q.store(rest);
        for (int32_t j = 0; j < count; ++j) codes[i + j] = rest[j];
      }
      V difference = w - q * factor;
      energy += double(sum(w * w));
      lost += double(sum(difference * difference));
    }
    scales[row] = scale;
    signal[row] = energy;
    noise[row] = lost;
  }
}

}  // namespace
}  // namespace edge
