// Ranking without sorting: the prefix of a ranking (key descending, id ascending) that reaches a
// given weight, found by a radix descent. Included by sampler.inl.
#include <cfloat>

#include "simd/half.h"

namespace edge {
namespace {

// Token ids in ascending order, with their logits and their weights e^((logit - maximum) /
// temperature).
struct Candidates {
  int32_t* ids;
  float* logits;
  float* weights;
  int32_t count;
};

// A prefix of the ranking: every key above `key`, and the first `ties` candidates equal to it.
struct Cut {
  uint32_t key;
  int32_t ties;
};

constexpr int32_t kBins = 2048;

// Orders floats (no NaN, no negative zero) as unsigned integers.
inline uint32_t rank_key(float logit) {
  uint32_t bits = float_bits(logit);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The shortest prefix of the ranking by key(i) whose weights, by weight(i), add up to `target`; at
// least one candidate of positive weight. Three histograms (11, 11, 10 bits of the key), each
// inside the chosen bin of the one before.
template <class Key, class Weight>
Cut find_cut(const Candidates& list, double target, double* bins, Key key_of, Weight weight) {
  uint32_t prefix = 0, known = 0;
  double above = 0.0;
  if (target <= 0.0) target = DBL_MIN;
  constexpr int kShifts[3] = {21, 10, 0};
  for (int shift : kShifts) {
    uint32_t digits = shift ? kBins - 1 : kBins / 2 - 1;
    for (uint32_t b = 0; b <= digits; ++b) bins[b] = 0.0;
    for (int32_t i = 0; i < list.count; ++i) {
      uint32_t key = key_of(i);
      if ((key & known) == prefix) bins[key >> shift & digits] += weight(i);
    }
    uint32_t chosen = 0;
    double before = above, reached = above;
    for (int32_t b = int32_t(digits); b >= 0 && reached < target; --b) {
      if (bins[b] <= 0.0) continue;
      chosen = uint32_t(b);
      before = reached;
      reached += bins[b];
    }
    above = before;
    prefix |= chosen << shift;
    known |= digits << shift;
  }
  Cut cut = {prefix, 0};
  for (int32_t i = 0; i < list.count; ++i) {
    if (key_of(i) != prefix) continue;
    ++cut.ties;
    above += weight(i);
    if (above >= target) break;
  }
  return cut;
}

template <class Keep>
inline void keep_if(Candidates* list, Keep keep) {
  int32_t count = 0;
  for (int32_t i = 0; i < list->count; ++i) {
    if (!keep(i)) continue;
    list->ids[count] = list->ids[i];
    list->logits[count] = list->logits[i];
    list->weights[count] = list->weights[i];
    ++count;
  }
  list->count = count;
}

template <class Key>
inline void apply_cut(Candidates* list, Cut cut, Key key_of) {
  keep_if(list, [&](int32_t i) {
    uint32_t key = key_of(i);
    return key > cut.key || (key == cut.key && cut.ties-- > 0);
  });
}

// Keeps the shortest prefix of the ranking by logit whose weights add up to `target`.
template <class Weight>
inline void keep_likeliest(Candidates* list, double target, double* bins, Weight weight) {
  auto key = [&](int32_t i) { return rank_key(list->logits[i]); };
  apply_cut(list, find_cut(*list, target, bins, key, weight), key);
}

}  // namespace
}  // namespace edge
