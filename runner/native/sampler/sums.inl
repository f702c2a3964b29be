// Walking a row of floats in lanes, and sums over it in one fixed order. Included by sampler.inl.
#include "core/kernel.h"
#include "simd/math.h"

namespace edge {
namespace {

// Entries that are summed in float32 lanes before the sum goes on in double.
constexpr int32_t kChunk = 1024;

// Calls body(index, 16 values) along `values`; lanes past `count` hold `fill`.
template <class V, class Body>
inline void each_group(const float* values, int32_t count, float fill, Body body) {
  int32_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i, V::load(values + i));
  if (int32_t rest = count - i) {
    body(i, select(V::Mask::first(rest), V::load_first(values + i, rest), V::broadcast(fill)));
  }
}

template <class V>
double chunk_sum(const float* values, int32_t count) {
  V part = V::broadcast(0.0f);
  each_group<V>(values, count < kChunk ? count : kChunk, 0.0f,
                [&](int32_t, V a) { part = part + a; });
  return double(sum(part));
}

template <class V>
double total_of(const float* values, int32_t count) {
  double total = 0.0;
  for (int32_t i = 0; i < count; i += kChunk) total += chunk_sum<V>(values + i, count - i);
  return total;
}

// The first index whose cumulative weight exceeds u (in [0, 1)) times the total; never one of
// weight zero. Some weight is positive.
template <class V>
int32_t draw(const float* weights, int32_t count, double u) {
  double target = u * total_of<V>(weights, count), before = 0.0;
  for (int32_t start = 0; start < count; start += kChunk) {
    double after = before + chunk_sum<V>(weights + start, count - start);
    if (after > target) {
      int32_t end = start + kChunk < count ? start + kChunk : count, last = start;
      for (int32_t i = start; i < end && before <= target; ++i) {
        if (weights[i] > 0.0f) last = i;
        before += double(weights[i]);
      }
      return last;  // within rounding of the chunk's end: its last candidate
    }
    before = after;
  }
  int32_t last = count - 1;  // the target was rounded up to the total
  while (last > 0 && !(weights[last] > 0.0f)) --last;
  return last;
}

}  // namespace
}  // namespace edge
