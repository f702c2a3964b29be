// Sampling one token over virtual lanes (contract: sampler.h). Included once per instruction set.
//
// The vocabulary is never sorted: each filter is a prefix of one ranking, found as a threshold, and
// what is left is drawn from by a cumulative sum in the order of ids.
#include <cfloat>

#include "sampler/candidates.inl"
#include "sampler/dry.inl"
#include "sampler/logprobs.inl"
#include "sampler/sampler.h"

namespace edge {
namespace {

enum SampleStatus : int32_t { kSampled = 0, kNonFinite = 1, kNothingAllowed = 2 };

// A row's scratch, in this order; `counts` shares the memory of the ids, which come later.
struct SamplerScratch {
  double* bins;
  float *logits, *weights;
  int32_t *ids, *matches;
};

inline SamplerScratch sampler_scratch(uint8_t* memory, int32_t vocab) {
  SamplerScratch scratch;
  scratch.bins = reinterpret_cast<double*>(memory);
  scratch.logits = reinterpret_cast<float*>(scratch.bins + kBins);
  scratch.weights = scratch.logits + round_up(vocab, kLanes);
  scratch.ids = reinterpret_cast<int32_t*>(scratch.weights + round_up(vocab, kLanes));
  scratch.matches = scratch.ids + round_up(vocab, kLanes);
  return scratch;
}

template <class V>
size_t scratch_bytes(int32_t vocab, int32_t context) {
  return kBins * sizeof(double) + size_t(round_up(vocab, kLanes)) * 12 + size_t(context) * 4;
}

// No NaN and no +inf.
template <class V>
bool all_usable(const float* logits, int32_t count) {
  auto usable = V::Mask::first(kLanes);
  each_group<V>(logits, count, 0.0f,
                [&](int32_t, V a) { usable = usable & less(a, V::broadcast(INFINITY)); });
  return usable.bits() == 0xffffu;
}

// The allowed bits of the 16 ids from `first`, a multiple of 16.
inline uint32_t allowed_bits(const uint32_t* allowed, int32_t first) {
  return allowed ? allowed[first / 32] >> first % 32 & 0xffffu : 0xffffu;
}

// A working copy in which ids that may not be sampled are -inf, and -0 is +0.
template <class V>
void copy_allowed(const float* logits, int32_t sampleable, const uint32_t* allowed, float* copy) {
  each_group<V>(logits, sampleable, -INFINITY, [&](int32_t first, V a) {
    auto mask = V::Mask::from_bits(allowed_bits(allowed, first));
    V kept = select(mask, a + V::broadcast(0.0f), V::broadcast(-INFINITY));
    int32_t left = sampleable - first;
    kept.store_first(copy + first, left < kLanes ? left : kLanes);
  });
}

inline bool any_allowed(const uint32_t* allowed, int32_t sampleable) {
  for (int32_t id = 0; id < sampleable; ++id) {
    if (!allowed || (allowed[id / 32] >> id % 32 & 1u)) return true;
  }
  return false;
}

// Adds the bias of one id per entry. False if a logit came out as NaN or +inf.
inline bool add_bias(const edge_sampler& sampler, int32_t sampleable, float* logits) {
  bool usable = true;
  for (int32_t i = 0; i < sampler.bias_count; ++i) {
    int32_t id = sampler.bias_ids[i];
    if (id >= sampleable) continue;
    logits[id] += sampler.bias_values[i];
    usable = usable && logits[id] < INFINITY;
  }
  return usable;
}

// Repetition penalty (arXiv 1909.05858; negative logits are multiplied) once per distinct id of the
// prompt and the output; presence and frequency penalties over the output alone. False as add_bias.
inline bool penalize(const edge_sampler& sampler, int32_t sampleable, int32_t* counts,
                     float* logits) {
  bool usable = true;
  auto in_range = [&](int32_t i) { return sampler.history[i] < sampleable; };
  for (int32_t i = 0; i < sampler.history_length; ++i) {
    if (in_range(i)) counts[sampler.history[i]] = 0;
  }
  for (int32_t i = sampler.prompt_length; i < sampler.history_length; ++i) {
    if (in_range(i)) ++counts[sampler.history[i]];
  }
  for (int32_t i = 0; i < sampler.history_length; ++i) {
    if (!in_range(i)) continue;
    int32_t id = sampler.history[i], count = counts[id];
    if (count < 0) continue;  // done
    counts[id] = -1;
    float logit = logits[id], penalty = sampler.repetition_penalty;
    logit = logit > 0.0f ? logit / penalty : logit * penalty;
    if (count > 0) {
      logit -= sampler.presence_penalty;
      logit -= sampler.frequency_penalty * float(count);
    }
    logits[id] = logit + 0.0f;  // no -0, which would rank below +0
    usable = usable && logit < INFINITY;
  }
  return usable;
}

inline bool has_penalty(const edge_sampler& sampler) {
  return sampler.repetition_penalty != 1.0f || sampler.presence_penalty != 0.0f ||
         sampler.frequency_penalty != 0.0f;
}

template <class V>
float highest(const float* logits, int32_t count) {
  V top = V::broadcast(-INFINITY);
  each_group<V>(logits, count, -INFINITY, [&](int32_t, V a) { top = max(top, a); });
  return max(top);
}

template <class V>
int32_t first_equal(const float* logits, int32_t count, float value) {
  int32_t id = 0;
  for (; id + kLanes <= count; id += kLanes) {
    if (equal(V::load(logits + id), V::broadcast(value)).bits()) break;
  }
  while (id < count - 1 && logits[id] != value) ++id;
  return id;
}

template <class V>
void weigh(const float* logits, int32_t count, float top, float temperature, float* weights) {
  V reference = V::broadcast(top), divisor = V::broadcast(temperature);
  each_group<V>(logits, count, -INFINITY, [&](int32_t first, V a) {
    int32_t left = count - first;
    exponential((a - reference) / divisor)
        .store_first(weights + first, left < kLanes ? left : kLanes);
  });
}

// How many candidates have a logit of at least `floor`, and their weight.
struct Tally {
  int32_t count;
  double weight;
};

template <class V>
Tally tally_from(const float* logits, const float* weights, int32_t count, float floor) {
  Tally tally = {0, 0.0};
  for (int32_t start = 0; start < count; start += kChunk) {
    int32_t left = count - start;
    V part = V::broadcast(0.0f);
    each_group<V>(logits + start, left < kChunk ? left : kChunk, -INFINITY, [&](int32_t i, V a) {
      auto above = less_equal(V::broadcast(floor), a);
      tally.count += __builtin_popcount(above.bits());
      int32_t rest = left - i;
      V weight = V::load_first(weights + start + i, rest < kLanes ? rest : kLanes);
      part = part + select(above, weight, V::broadcast(0.0f));
    });
    tally.weight += double(sum(part));
  }
  return tally;
}

// Gathers the candidates with a logit of at least `floor`, in place: an entry never moves up.
template <class V>
Candidates gather_from(const SamplerScratch& scratch, int32_t count, float floor) {
  Candidates list = {scratch.ids, scratch.logits, scratch.weights, 0};
  each_group<V>(scratch.logits, count, -INFINITY, [&](int32_t first, V a) {
    uint32_t bits = less_equal(V::broadcast(floor), a).bits();
    for (int32_t id = first; bits; ++id, bits >>= 1) {
      if (!(bits & 1u)) continue;
      list.ids[list.count] = id;
      list.logits[list.count] = scratch.logits[id];
      list.weights[list.count] = scratch.weights[id];
      ++list.count;
    }
  });
  return list;
}

// A logit such that the candidates from it up are a prefix of the ranking that holds all that the
// filters can keep: most of a vocabulary is far below the maximum and need not be looked at again.
template <class V>
float candidate_floor(const SamplerScratch& scratch, int32_t count, float top,
                      const edge_sampler& sampler) {
  // Typicality keeps no prefix, and what min-p looks at comes after it.
  bool typical = sampler.typical_p < 1.0f;
  bool by_count = sampler.top_k > 0, by_weight = sampler.min_p > 0.0f && !typical;
  if (typical && !by_count) return -FLT_MAX;
  double total = by_count || by_weight ? 0.0 : total_of<V>(scratch.weights, count);
  for (float depth = 4.0f; depth <= 16.0f; depth += 4.0f) {
    float floor = top - depth * sampler.temperature;
    if (by_weight && natural_log(sampler.min_p) > -0.99 * depth) return floor;
    Tally tally = tally_from<V>(scratch.logits, scratch.weights, count, floor);
    if (by_count && tally.count >= sampler.top_k) return floor;
    if (!by_count && !by_weight && tally.weight >= double(sampler.top_p) * total) return floor;
  }
  return -FLT_MAX;
}

// Locally typical sampling (Meister et al., arXiv 2202.00666): keeps the candidates whose surprise
// is nearest to the entropy, until they have typical_p of the probability. With x the logits over
// the temperature, -log p(i) - H is mean(x) - x(i).
template <class V>
void keep_typical(Candidates* list, float top, const edge_sampler& sampler, double* bins) {
  auto scaled = [&](int32_t i) { return (list->logits[i] - top) / sampler.temperature; };
  double total = total_of<V>(list->weights, list->count), sum = 0.0;
  for (int32_t i = 0; i < list->count; ++i) {
    if (list->weights[i] > 0.0f) sum += double(list->weights[i]) * double(scaled(i));
  }
  float mean = float(sum / total);
  auto key = [&](int32_t i) { return ~float_bits(std::fabs(scaled(i) - mean)); };
  auto weight = [&](int32_t i) { return double(list->weights[i]); };
  double target = double(sampler.typical_p) * total;
  apply_cut(list, find_cut(*list, target, bins, key, weight), key);
}

// XTC ("exclude top choices"; github.com/oobabooga/textgen/pull/6335): of the candidates that have
// at least `threshold` of the probability, only the last in the ranking keeps its weight.
template <class V>
void exclude_top(const float* logits, float* weights, int32_t count, float threshold) {
  double least = double(threshold) * total_of<V>(weights, count);
  auto chosen = [&](int32_t i) { return weights[i] > 0.0f && double(weights[i]) >= least; };
  int32_t last = -1;
  for (int32_t i = 0; i < count; ++i) {
    if (chosen(i) && (last < 0 || logits[i] <= logits[last])) last = i;
  }
  for (int32_t i = 0; i < count; ++i) {
    if (i != last && chosen(i)) weights[i] = 0.0f;
  }
}

// Top-k, typicality, min-p, then top-p over what those left.
template <class V>
Candidates filter(const SamplerScratch& scratch, int32_t count, float top,
                  const edge_sampler& sampler) {
  float floor = candidate_floor<V>(scratch, count, top, sampler);
  double total = total_of<V>(scratch.weights, count);
  Candidates list = gather_from<V>(scratch, count, floor);
  if (sampler.top_k > 0 && sampler.top_k < list.count) {
    auto one = [](int32_t) { return 1.0; };
    keep_likeliest(&list, double(sampler.top_k), scratch.bins, one);
  }
  if (sampler.typical_p < 1.0f) {
    keep_typical<V>(&list, top, sampler, scratch.bins);
    top = highest<V>(list.logits, list.count);
  }
  if (sampler.min_p > 0.0f) {
    float lowest = float(natural_log(sampler.min_p));
    keep_if(&list,
            [&](int32_t i) { return (list.logits[i] - top) / sampler.temperature >= lowest; });
  }
  if (sampler.top_p < 1.0f) {
    bool cut = sampler.top_k > 0 || sampler.min_p > 0.0f || sampler.typical_p < 1.0f;
    if (cut) total = total_of<V>(list.weights, list.count);
    auto weight = [&](int32_t i) { return double(list.weights[i]); };
    keep_likeliest(&list, double(sampler.top_p) * total, scratch.bins, weight);
  }
  return list;
}

// Fills out->id, or out->status.
template <class V>
void choose(const SamplerScratch& scratch, const float* logits, int32_t sampleable,
            const edge_sampler& sampler, edge_sample* out) {
  copy_allowed<V>(logits, sampleable, sampler.allowed, scratch.logits);
  bool usable = add_bias(sampler, sampleable, scratch.logits);
  if (has_penalty(sampler)) {
    usable = penalize(sampler, sampleable, scratch.ids, scratch.logits) && usable;
  }
  if (sampler.dry_multiplier > 0.0f) {
    discourage(sampler, sampleable, scratch.matches, scratch.ids, scratch.logits);
  }
  float top = highest<V>(scratch.logits, sampleable);
  if (!usable || top == -INFINITY) {
    out->status =
        usable && !any_allowed(sampler.allowed, sampleable) ? kNothingAllowed : kNonFinite;
  } else if (sampler.temperature == 0.0f) {
    out->id = first_equal<V>(scratch.logits, sampleable, top);
  } else {
    weigh<V>(scratch.logits, sampleable, top, sampler.temperature, scratch.weights);
    Randoms random = randoms(sampler.seed, sampler.counter);
    bool excluding = random.coin < double(sampler.xtc_probability);
    if (sampler.top_k > 0 || sampler.min_p > 0.0f || sampler.top_p < 1.0f ||
        sampler.typical_p < 1.0f) {
      Candidates list = filter<V>(scratch, sampleable, top, sampler);
      if (excluding) exclude_top<V>(list.logits, list.weights, list.count, sampler.xtc_threshold);
      out->id = list.ids[draw<V>(list.weights, list.count, random.draw)];
    } else {
      if (excluding) {
        exclude_top<V>(scratch.logits, scratch.weights, sampleable, sampler.xtc_threshold);
      }
      out->id = draw<V>(scratch.weights, sampleable, random.draw);
    }
  }
}

template <class V>
void sample(const float* logits, int32_t vocab, int32_t sampleable, const edge_sampler& sampler,
            uint8_t* scratch, edge_sample* out) {
  out->id = -1;
  out->status = kSampled;
  out->logprob = 0.0f;
  out->top_count = 0;
  if (!all_usable<V>(logits, vocab)) {
    out->status = kNonFinite;
    return;
  }
  if (sampler.target >= 0) {
    if (logits[sampler.target] == -INFINITY) {
      out->status = kNonFinite;
    } else {
      out->id = sampler.target;
    }
  } else {
    choose<V>(sampler_scratch(scratch, vocab), logits, sampleable, sampler, out);
  }
  if (out->status == kSampled && sampler.top_logprobs >= 0) {
    double total = log_total<V>(logits, vocab);
    rank_logprobs<V>(logits, total, sampleable, sampler.top_logprobs, out);
    out->logprob = float(double(logits[out->id]) - total);
  }
}

template <class V>
constexpr SamplerKernels sampler_kernels() {
  return {scratch_bytes<V>, sample<V>};
}

}  // namespace
}  // namespace edge
