// DRY ("don't repeat yourself"; github.com/oobabooga/textgen/pull/5677): a token that would go on
// with a repetition of n tokens loses multiplier * base^(n - allowed_length). Included by
// sampler.inl.
#include "edge_llm.h"
#include "sampler/random.h"

namespace edge {
namespace {

constexpr double kMostPenalty = 1e30;  // what is left is finite, and has no weight

inline bool has_bit(const uint32_t* bits, int32_t id) {
  return bits != nullptr && (bits[id / 32] >> id % 32 & 1u);
}

// matches[i]: how many of the last tokens are also the last ones of the text without its last i
// tokens, for i from 1; in time linear in `count` (Gusfield's Z-algorithm, read from the end).
inline void match_ends(const int32_t* tokens, int32_t count, int32_t* matches) {
  const int32_t* last = tokens + count - 1;
  int32_t begin = 0, end = 0;  // of the match that reaches farthest
  for (int32_t i = 1; i < count; ++i) {
    int32_t length = 0;
    if (i < end) length = matches[i - begin] < end - i ? matches[i - begin] : end - i;
    while (i + length < count && last[-length] == last[-i - length]) ++length;
    matches[i] = length;
    if (i + length > end) {
      begin = i;
      end = i + length;
    }
  }
}

// Lowers the logit of each id that goes on with a repetition, by its longest one. No repetition
// reaches across a breaker, and no breaker is penalized. `matches` has room for the history,
// `lengths` for the vocabulary.
inline void discourage(const edge_sampler& sampler, int32_t sampleable, int32_t* matches,
                       int32_t* lengths, float* logits) {
  int32_t count = sampler.history_length, most = sampler.dry_penalty_last_n;
  if (most >= 0 && most < count) count = most;
  const int32_t* tokens = sampler.history + (sampler.history_length - count);
  int32_t reach = 0;
  while (reach < count && !has_bit(sampler.breakers, tokens[count - 1 - reach])) ++reach;
  if (count < 2 || reach < sampler.dry_allowed_length) return;
  match_ends(tokens, count, matches);
  auto repeated = [&](int32_t i) { return matches[i] < reach ? matches[i] : reach; };
  auto counts = [&](int32_t i) {
    int32_t next = tokens[count - i];
    return next < sampleable && repeated(i) >= sampler.dry_allowed_length &&
           !has_bit(sampler.breakers, next);
  };
  for (int32_t i = 1; i < count; ++i) {
    if (counts(i)) lengths[tokens[count - i]] = 0;
  }
  for (int32_t i = 1; i < count; ++i) {
    int32_t* length = &lengths[tokens[count - i]];
    if (counts(i) && repeated(i) > *length) *length = repeated(i);
  }
  for (int32_t i = 1; i < count; ++i) {
    if (!counts(i)) continue;
    int32_t id = tokens[count - i], length = lengths[id];
    if (length < 0) continue;  // done
    lengths[id] = -1;
    double penalty = double(sampler.dry_multiplier) *
                     power(double(sampler.dry_base), length - sampler.dry_allowed_length);
    logits[id] -= float(penalty < kMostPenalty ? penalty : kMostPenalty);
    logits[id] += 0.0f;  // no -0, which would rank below +0
  }
}

}  // namespace
}  // namespace edge
