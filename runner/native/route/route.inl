// Routing over virtual lanes; route.h has the contract. Included once per instruction set.
#include <algorithm>
#include <limits>

#include "route/route.h"
#include "simd/math.h"

namespace edge {
namespace {

// Scores of `count` logits, into `y`, whose last lanes may be written beyond them.
template <class V>
void softmax(const float* logits, int32_t count, float* y) {
  const V low = V::broadcast(-std::numeric_limits<float>::infinity());
  const auto load = [&](int32_t i) {
    const int32_t rest = std::min(kLanes, count - i);
    if (rest == kLanes) return V::load(logits + i);
    return select(V::Mask::first(rest), V::load_first(logits + i, rest), low);
  };
  V most = low;
  for (int32_t i = 0; i < count; i += kLanes) most = max(load(i), most);
  const V top = V::broadcast(max(most));
  V total = V::broadcast(0.0f);
  for (int32_t i = 0; i < count; i += kLanes) {
    const V power = exponential(load(i) - top);
    power.store(y + i);
    total = total + power;
  }
  const V divisor = V::broadcast(sum(total));
  for (int32_t i = 0; i < count; i += kLanes) (V::load(y + i) / divisor).store(y + i);
}

template <class V>
void sigmoid(const float* logits, int32_t count, float* y) {
  const V one = V::broadcast(1.0f);
  for (int32_t i = 0; i < count; i += kLanes) {
    const V x = V::load_first(logits + i, std::min(kLanes, count - i));
    (one / (one + exponential(-x))).store(y + i);
  }
}

// The share of expert `own`, in a softmax over those of `left` that are near it: its power there
// is 1. `left` are the logits, -inf in place of those chosen before.
template <class V>
float near_share(const float* left, int32_t count, int32_t own, float threshold) {
  const V low = V::broadcast(-std::numeric_limits<float>::infinity());
  const V top = V::broadcast(left[own]), limit = V::broadcast(threshold);
  V total = V::broadcast(0.0f);
  for (int32_t i = 0; i < count; i += kLanes) {
    const int32_t rest = std::min(kLanes, count - i);
    const V x = select(V::Mask::first(rest), V::load_first(left + i, rest), low);
    const auto far = less(limit, (top - x) / max(abs(x), top));
    total = total + exponential(select(far, low, x) - top);
  }
  return 1.0f / sum(total);
}

// Puts the shares of the experts in `best`, which are in the order of the choice, into `y`, and
// sorts them by ascending expert.
template <class V>
void near_shares(const RouteArgs& args, const float* logits, int32_t* best, float* y) {
  float left[kMostExperts];
  std::copy(logits, logits + args.logits.cols, left);
  for (int32_t i = 0; i < args.chosen; ++i) {
    y[best[i]] = near_share<V>(left, args.logits.cols, best[i], args.threshold);
    left[best[i]] = -std::numeric_limits<float>::infinity();
  }
  std::sort(best, best + args.chosen);
}

// Puts the `chosen` experts with the largest keys into `best`, the largest first.
template <class Key>
void choose(int32_t experts, int32_t chosen, Key key, int32_t* best) {
  float keys[kMostExperts];
  int32_t count = 0;
  for (int32_t e = 0; e < experts; ++e) {
    const float value = key(e);
    if (count == chosen && !(value > keys[count - 1])) continue;
    int32_t place = count < chosen ? count++ : count - 1;
    for (; place > 0 && value > keys[place - 1]; --place) {
      keys[place] = keys[place - 1];
      best[place] = best[place - 1];
    }
    keys[place] = value;
    best[place] = e;
  }
}

template <class V>
void route_row(const RouteArgs& args, const float* logits, float* y) {
  const int32_t experts = args.logits.cols, chosen = args.chosen;
  int32_t best[kMostExperts];
  float taken[kMostExperts];
  if (args.scoring == Scoring::sigmoid) {
    sigmoid<V>(logits, experts, y);
  } else if (args.scoring == Scoring::softmax || args.bias != nullptr) {
    softmax<V>(logits, experts, y);
  }
  if (args.bias == nullptr) {
    choose(experts, chosen, [&](int32_t e) { return logits[e]; }, best);
  } else {
    choose(experts, chosen, [&](int32_t e) { return y[e] + args.bias[e]; }, best);
  }
  if (args.scoring == Scoring::softmax_of_near) {
    near_shares<V>(args, logits, best, y);
  } else {
    std::sort(best, best + chosen);
  }
  const bool again = args.scoring == Scoring::softmax_of_chosen;
  for (int32_t i = 0; i < chosen; ++i) taken[i] = (again ? logits : y)[best[i]];
  if (again) softmax<V>(taken, chosen, taken);
  if (args.normalize) {
    float total = 0.0f;
    for (int32_t i = 0; i < chosen; ++i) total += taken[i];
    total += args.eps;
    for (int32_t i = 0; i < chosen; ++i) taken[i] /= total;
  }
  std::fill(y, y + experts, 0.0f);
  for (int32_t i = 0; i < chosen; ++i) {
    y[best[i]] = taken[i] * args.scale;
    if (args.factors != nullptr) y[best[i]] *= args.factors[best[i]];
  }
}

template <class V>
void route(const RouteArgs& args, Worker worker) {
  const Share rows = share(args.logits.rows, 1, worker);
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    route_row<V>(args, args.logits.row(row), args.shares.row(row));
  }
}

}  // namespace
}  // namespace edge
