// Log-probabilities of the raw logits: log softmax over the whole vocabulary. Included by
// sampler.inl.
#include <cmath>

#include "sampler/random.h"
#include "sampler/sampler.h"
#include "sampler/sums.inl"

namespace edge {
namespace {

// The `most` highest finite logits below `sampleable`, ranked; returns how many there are.
template <class V>
int32_t highest_ids(const float* logits, int32_t sampleable, int32_t most, int32_t* ids,
                    float* values) {
  int32_t count = 0;
  float floor = -INFINITY;
  for (int32_t start = 0; start < sampleable && most > 0; start += kLanes) {
    int32_t left = sampleable - start, width = left < kLanes ? left : kLanes;
    auto better = less(V::broadcast(floor), V::load_first(logits + start, width));
    uint32_t bits = (better & V::Mask::first(width)).bits();
    for (int32_t j = 0; bits; ++j, bits >>= 1) {
      float value = logits[start + j];
      if (!(bits & 1u) || !(value > floor)) continue;
      int32_t place = count < most ? count++ : most - 1;
      for (; place > 0 && values[place - 1] < value; --place) {
        values[place] = values[place - 1];
        ids[place] = ids[place - 1];
      }
      values[place] = value;
      ids[place] = start + j;
      if (count == most) floor = values[most - 1];
    }
  }
  return count;
}

// log(sum of e^logit); needs finite logits or -inf, at least one finite.
template <class V>
double log_total(const float* logits, int32_t vocab) {
  V highest = V::broadcast(-INFINITY);
  each_group<V>(logits, vocab, -INFINITY, [&](int32_t, V a) { highest = max(highest, a); });
  float top = max(highest);
  double total = 0.0;
  for (int32_t start = 0; start < vocab; start += kChunk) {
    int32_t left = vocab - start;
    V part = V::broadcast(0.0f);
    each_group<V>(logits + start, left < kChunk ? left : kChunk, -INFINITY,
                  [&](int32_t, V a) { part = part + exponential(a - V::broadcast(top)); });
    total += double(sum(part));
  }
  return double(top) + natural_log(total);
}

template <class V>
void rank_logprobs(const float* logits, double total, int32_t sampleable, int32_t most,
                   edge_sample* out) {
  out->top_count = highest_ids<V>(logits, sampleable, most, out->top_ids, out->top_logprobs);
  for (int32_t i = 0; i < out->top_count; ++i) {
    out->top_logprobs[i] = float(double(out->top_logprobs[i]) - total);
  }
}

}  // namespace
}  // namespace edge
