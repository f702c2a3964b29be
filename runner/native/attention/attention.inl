// Paged attention over virtual lanes (contract: attention.h). Included once per instruction set.
//
// Work is cut into tiles: tokens times query heads of one kv head. The tokens are consecutive ones
// of one sequence, or single ones of sequences that share most of their blocks: a beginning that
// they have in common is then read once for all in the tile.
// Inside a block, rows that see the same tokens form a span and share every load of keys and
// values. The online softmax (arXiv 1805.02867) of a row goes through its blocks in ascending
// order; all it computes depends on that row and its visible tokens alone, so a row's bits are the
// same in every tile.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <type_traits>

#include "attention/attention.h"
#include "attention/tiles.inl"
#include "rope/rope.inl"
#include "simd/half.h"
#include "simd/math.h"

namespace edge {
namespace {

constexpr int32_t kQueryRows = 48;  // rows of a tile: their queries, outputs and weights stay in L2

inline int64_t padded_dim(const KvState& state) { return round_up(state.head_dim, kLanes); }

template <class Element>
constexpr bool kScaled = std::is_same_v<std::remove_const_t<Element>, int8_t>;

// Elements that a token has in a kv head's keys or values, its scale included.
template <class Element>
inline int64_t token_elements(int64_t columns) {
  return columns + (kScaled<Element> ? sizeof(float) : 0);
}

template <class Element>
inline Element* state_part(const AttentionArgs& args, int32_t sequence, int32_t block) {
  return reinterpret_cast<Element*>(args.part(sequence, block));
}

template <class Element>
inline Element* keys_of(const KvState& state, Element* part, int32_t kv_head) {
  const int64_t keys = token_elements<Element>(state.head_dim);
  const int64_t values = token_elements<Element>(padded_dim(state));
  return part + kv_head * (keys + values) * kBlockTokens;
}

template <class Element>
inline Element* values_of(const KvState& state, Element* part, int32_t kv_head) {
  return keys_of(state, part, kv_head) + token_elements<Element>(state.head_dim) * kBlockTokens;
}

// The scales [kBlockTokens] behind a kv head's keys or values.
template <class Element>
inline auto scales_behind(Element* elements, int64_t columns) {
  using Scale = std::conditional_t<std::is_const_v<Element>, const float, float>;
  return reinterpret_cast<Scale*>(elements + columns * kBlockTokens);
}

template <class V>
size_t scratch_bytes(const AttentionArgs& args) {
  return sizeof(float) * kQueryRows * (2 * padded_dim(args.state) + kBlockTokens + kLanes + 2);
}

template <class V>
inline float* worker_scratch(const AttentionArgs& args, Worker worker) {
  return reinterpret_cast<float*>(args.scratch + worker.index * scratch_bytes<V>(args));
}

// The int8 scale of one token's key or value of one head.
template <class V>
float row_scale(const float* x, int32_t head_dim) {
  V highest = V::broadcast(0.0f), zeros = highest;
  for (int32_t i = 0; i < head_dim; i += kLanes) {
    int32_t left = head_dim - i;
    V part = V::load_first(x + i, left < kLanes ? left : kLanes);
    highest = max(highest, abs(part));
    zeros = fma(part, V::broadcast(0.0f), zeros);  // NaN where x is not finite
  }
  float scale = max(highest) / 127.0f;
  if (sum(zeros) != 0.0f) return NAN;
  return scale > FLT_MIN ? scale : FLT_MIN;
}

// What the cache keeps of x: for i8, x over its scale.
template <class V, class Element>
inline V stored(V x, V inverse) {
  if constexpr (!kScaled<Element>) return x;
  V limit = V::broadcast(127.0f);
  return max(min(x * inverse, limit), -limit);
}

// One head of a token's q or k as the rest takes it: `x`, or `rotated`, where that is written to.
template <class V>
inline const float* rotate_head(const Rotation& rotation, int32_t position, const float* x,
                                int32_t head_dim, float* rotated) {
  if (rotation.cos == nullptr) return x;
  const int64_t angles = int64_t(position) * rotation.cols;
  rope_head<V>(x, rotation.cos + angles, rotation.sin + angles, rotation.cols, head_dim, rotated);
  return rotated;
}

// `rotated`: room for a head.
template <class V, class Element>
void write_token(const AttentionArgs& args, int32_t token, int32_t kv_head, float* rotated) {
  const KvState& state = args.state;
  int32_t position = args.positions[token], slot = position % kBlockTokens;
  Element* part = state_part<Element>(args, args.sequences[token], position / kBlockTokens);
  const float* k =
      rotate_head<V>(args.rotate_k, position, args.k.row(token) + int64_t(kv_head) * state.head_dim,
                     state.head_dim, rotated);
  const float* v = args.v.row(token) + int64_t(kv_head) * state.head_dim;
  Element* keys = keys_of(state, part, kv_head) + slot;
  Element* values = values_of(state, part, kv_head);
  V inverse_k = V::broadcast(1.0f), inverse_v = inverse_k;
  if constexpr (kScaled<Element>) {
    float key_scale = row_scale<V>(k, state.head_dim),
          value_scale = row_scale<V>(v, state.head_dim);
    scales_behind(keys_of(state, part, kv_head), state.head_dim)[slot] = key_scale;
    scales_behind(values, padded_dim(state))[slot] = value_scale;
    inverse_k = V::broadcast(1.0f / key_scale);
    inverse_v = V::broadcast(1.0f / value_scale);
  }
  values += slot * padded_dim(state);
  for (int32_t i = 0; i < state.head_dim; i += kLanes) {
    int32_t left = state.head_dim - i, count = left < kLanes ? left : kLanes;
    stored<V, Element>(V::load_first(v + i, count), inverse_v)
        .store(values + i);  // the padding becomes zero
    Element column[kLanes];
    stored<V, Element>(V::load_first(k + i, count), inverse_k).store(column);
    for (int32_t j = 0; j < count; ++j) keys[int64_t(i + j) * kBlockTokens] = column[j];
  }
}

// Head by head, so that a long prompt fills one block of transposed keys while it is in L1.
template <class V, class Element>
void write_state(const AttentionArgs& args, Worker worker) {
  constexpr int64_t kFetchAhead = 4;
  int64_t tokens = args.k.rows;
  float* rotated = worker_scratch<V>(args, worker);
  Share mine = share(tokens * args.state.kv_heads, 1, worker);
  for (int64_t item = mine.begin; item < mine.end; ++item) {
    const int64_t token = item % tokens, column = item / tokens * args.state.head_dim;
    if (token + kFetchAhead < tokens) {  // rows lie too far apart to be seen coming
      const float* k = args.k.row(token + kFetchAhead) + column;
      const float* v = args.v.row(token + kFetchAhead) + column;
      for (int32_t i = 0; i < args.state.head_dim; i += kLanes) {
        __builtin_prefetch(k + i);
        __builtin_prefetch(v + i);
      }
    }
    write_token<V, Element>(args, int32_t(token), int32_t(item / tokens), rotated);
  }
}

template <class V>
void write(const AttentionArgs& args, Worker worker) {
  switch (args.state.type) {
    case KvType::f32:
      return write_state<V, float>(args, worker);
    case KvType::f16:
      return write_state<V, Half>(args, worker);
    case KvType::i8:
      return write_state<V, int8_t>(args, worker);
  }
}

// One tile and the worker's scratch for it. Rows are token-major: row = token * heads + head.
struct Tile {
  int32_t first, tokens;  // rows of the flat batch
  int32_t shared;         // first blocks that all of them have; 0: they are of one sequence
  int32_t head, heads;    // query heads [head, head + heads) of one kv head
  int32_t kv_head;
  int32_t written;   // positions of the sequence that this step and earlier ones have written
  int64_t stride;    // floats between rows of q and out: head_dim padded to 16
  float* q;          // [rows][stride], scaled
  float* out;        // [rows][stride]
  float* weights;    // [rows][kBlockTokens]: scores, then e^(score - maximum)
  float* totals;     // [rows][16]: sum of weights, in lanes
  float* maxima;     // [rows]
  float* factors;    // [rows]: the block's own maximum, then what the new maximum makes of the old
  const void* next;  // keys that the worker reads behind this tile, most likely
};

// The visible part of a block, as slots [begin, end).
struct Visible {
  int32_t begin, end;
};

inline int32_t first_visible(const AttentionArgs& args, int32_t token) {
  int32_t first = args.window > 0 ? args.positions[token] - args.window + 1 : 0;
  return first > 0 ? first : 0;
}

// How many positions of a token's sequence are written; causal attention has no use for it.
inline int32_t written_of(const AttentionArgs& args, int32_t token) {
  if (!args.bidirectional) return 0;
  const int32_t *begin = args.sequences + token, *end = args.sequences + args.q.rows;
  const auto* next = std::partition_point(begin, end, [&](int32_t s) { return s == *begin; });
  return args.positions[next - args.sequences - 1] + 1;
}

// The position behind the last one that a token sees.
inline int32_t end_visible(const AttentionArgs& args, int32_t token, int32_t written) {
  const int32_t position = args.positions[token];
  if (!args.bidirectional) return position + 1;
  return args.window > 0 && args.window < written - position ? position + args.window : written;
}

inline Visible visible(const AttentionArgs& args, int32_t token, int32_t written, int32_t block) {
  int32_t begin = first_visible(args, token) - block * kBlockTokens;
  int32_t end = end_visible(args, token, written) - block * kBlockTokens;
  return {begin > 0 ? begin : 0, end < kBlockTokens ? end : kBlockTokens};
}

template <class V>
void start(const AttentionArgs& args, const Tile& tile) {
  V scale = V::broadcast(args.scale), zero = V::broadcast(0.0f);
  int32_t head_dim = args.state.head_dim;
  for (int32_t row = 0; row < tile.tokens * tile.heads; ++row) {
    const int32_t token = tile.first + row / tile.heads, head = tile.head + row % tile.heads;
    const float* q = rotate_head<V>(args.rotate_q, args.positions[token],
                                    args.q.row(token) + int64_t(head) * head_dim, head_dim,
                                    tile.q + row * tile.stride);
    for (int64_t i = 0; i < tile.stride; i += kLanes) {
      int32_t left = head_dim - int32_t(i), count = left < kLanes ? left : kLanes;
      (V::load_first(q + i, count) * scale).store(tile.q + row * tile.stride + i);
      zero.store(tile.out + row * tile.stride + i);
    }
    zero.store(tile.totals + row * kLanes);
    tile.maxima[row] = -INFINITY;
    if (args.sinks != nullptr) {
      tile.maxima[row] = args.sinks[head];
      tile.totals[row * kLanes] = 1.0f;
    }
  }
}

// What attend_span reads: this block, and the keys that the worker reads next.
template <class Element>
struct Block {
  const Element *keys, *values, *next_keys;
  const float *key_scales, *value_scales;  // i8 alone
};

// The visible slots of a block as one mask for each vector of scores.
template <class V>
struct SlotMask {
  static constexpr int kCount = kBlockTokens / kLanes;
  typename V::Mask lanes[kCount];
  bool whole;

  explicit SlotMask(Visible seen) : whole(seen.begin == 0 && seen.end == kBlockTokens) {
    const auto clamp = [](int32_t lane) { return lane < 0 ? 0 : lane > kLanes ? kLanes : lane; };
    for (int32_t c = 0; c < kCount; ++c) {
      const int32_t slot = c * kLanes, end = clamp(seen.end - slot);
      const int32_t begin = clamp(seen.begin - slot);
      lanes[c] = V::Mask::range(begin < end ? begin : end, end);
    }
  }
};

// A row's scores as the softmax takes them, in place, and their maximum.
template <class V, class Element>
float cap_scores(const AttentionArgs& args, const SlotMask<V>& mask, const Block<Element>& memory,
                 float* scores) {
  const V lowest = V::broadcast(-INFINITY);
  V highest = lowest;
#pragma GCC unroll 4
  for (int c = 0; c < SlotMask<V>::kCount; ++c) {
    V score = V::load(scores + c * kLanes);
    if constexpr (kScaled<Element>) score = score * V::load(memory.key_scales + c * kLanes);
    if (args.softcap > 0.0f) {
      V cap = V::broadcast(args.softcap);
      score = hyperbolic_tangent(score / cap) * cap;
    }
    if (!mask.whole) score = select(mask.lanes[c], score, lowest);
    score.store(scores + c * kLanes);
    highest = max(highest, score);
  }
  return max(highest);
}

// A row's scores become weights e^(score - maximum), 0 in masked slots, and its total, rescaled by
// `factor`, grows by them.
template <class V, class Element>
void weigh(const Block<Element>& memory, float maximum, float factor, float* weights,
           float* totals) {
  const V reference = V::broadcast(maximum);
  V total = V::load(totals) * V::broadcast(factor);
#pragma GCC unroll 4
  for (int c = 0; c < SlotMask<V>::kCount; ++c) {
    V weight = exponential(V::load(weights + c * kLanes) - reference);
    total = total + weight;
    if constexpr (kScaled<Element>) weight = weight * V::load(memory.value_scales + c * kLanes);
    weight.store(weights + c * kLanes);
  }
  total.store(totals);
}

// Turns the scores of a block into weights, and rescales what earlier blocks left of those rows
// whose maximum grew. Slots outside the mask become weight zero whatever their scores were.
template <class V, class Element>
void soften(const AttentionArgs& args, const Tile& tile, int32_t first, int32_t rows,
            const SlotMask<V>& mask, const Block<Element>& memory) {
  for (int32_t row = first; row < first + rows; ++row) {
    tile.factors[row] = cap_scores<V>(args, mask, memory, tile.weights + row * kBlockTokens);
  }
  const V one = V::broadcast(1.0f);
  for (int32_t row = first; row < first + rows; row += kLanes) {
    const int32_t left = first + rows - row, count = left < kLanes ? left : kLanes;
    const V old = V::load_first(tile.maxima + row, count);
    const V maximum = max(V::load_first(tile.factors + row, count), old);
    maximum.store_first(tile.maxima + row, count);
    select(equal(maximum, old), one, exponential(old - maximum))
        .store_first(tile.factors + row, count);
  }
  for (int32_t row = first; row < first + rows; ++row) {
    const float factor = tile.factors[row];
    weigh<V>(memory, tile.maxima[row], factor, tile.weights + row * kBlockTokens,
             tile.totals + row * kLanes);
    if (factor == 1.0f) continue;
    const V factors = V::broadcast(factor);
    float* out = tile.out + row * tile.stride;
    for (int64_t i = 0; i < tile.stride; i += kLanes) (V::load(out + i) * factors).store(out + i);
  }
}

template <class V, class Element>
void attend_span(const AttentionArgs& args, const Tile& tile, int32_t first_row, int32_t rows,
                 Visible seen, const Block<Element>& block) {
  const float* q = tile.q + first_row * tile.stride;
  float* out = tile.out + first_row * tile.stride;
  float* weights = tile.weights + first_row * kBlockTokens;
  // The first rows ask for what all need next.
  each_row_tile(rows, [&](int32_t row, auto count) {
    constexpr int kRows = decltype(count)::value;
    const auto score =
        row == 0 ? score_rows<V, Element, kRows, true> : score_rows<V, Element, kRows, false>;
    score(q + row * tile.stride, tile.stride, block.keys, args.state.head_dim, seen.begin, seen.end,
          block.values, weights + row * kBlockTokens);
  });
  fetch<2048>(block.next_keys);  // as much as arrives during the softmax
  soften<V>(args, tile, first_row, rows, SlotMask<V>(seen), block);
  each_row_tile(rows, [&](int32_t row, auto count) {
    constexpr int kRows = decltype(count)::value;
    const auto add =
        row == 0 ? value_rows<V, Element, kRows, true> : value_rows<V, Element, kRows, false>;
    add(weights + row * kBlockTokens, block.values, seen.begin, seen.end, tile.stride,
        block.next_keys, out + row * tile.stride);
  });
}

template <class V>
void finish(const AttentionArgs& args, const Tile& tile) {
  int32_t head_dim = args.state.head_dim;
  for (int32_t row = 0; row < tile.tokens * tile.heads; ++row) {
    V total = V::broadcast(sum(V::load(tile.totals + row * kLanes)));
    float* y = args.out.row(tile.first + row / tile.heads) +
               int64_t(tile.head + row % tile.heads) * head_dim;
    for (int32_t i = 0; i < head_dim; i += kLanes) {
      int32_t left = head_dim - i;
      V part = V::load(tile.out + row * tile.stride + i) / total;
      part.store_first(y + i, left < kLanes ? left : kLanes);
    }
  }
}

inline int32_t first_block(const AttentionArgs& args, int32_t token) {
  return first_visible(args, token) / kBlockTokens;
}

// The number behind the last block that a token sees.
inline int32_t end_block(const AttentionArgs& args, int32_t token, int32_t written) {
  return (end_visible(args, token, written) - 1) / kBlockTokens + 1;
}

// How many of a token's first blocks are `other`'s as well. Both begin at the same number.
inline int32_t shared_blocks(const AttentionArgs& args, int32_t token, int32_t other) {
  const int32_t begin = first_block(args, token);
  const int32_t end = std::min(end_block(args, token, 0), end_block(args, other, 0));
  const auto part = [&](int32_t row, int32_t block) {
    return args.part(args.sequences[row], block);
  };
  int32_t block = begin;
  while (block < end && part(token, block) == part(other, block)) ++block;
  return block - begin;
}

// A token's keys in one of its blocks.
template <class Element>
inline const Element* token_keys(const AttentionArgs& args, int32_t token, int32_t block,
                                 int32_t kv_head) {
  const Element* part = state_part<Element>(args, args.sequences[token], block);
  return keys_of(args.state, part, kv_head);
}

// The tokens from `first` to `last` of a tile attend to blocks [begin, end), which all of them
// have; the worker goes on with the keys at `next`.
template <class V, class Element>
void attend_blocks(const AttentionArgs& args, const Tile& tile, int32_t first, int32_t last,
                   int32_t begin, int32_t end, const Element* next) {
  for (int32_t block = begin; block < end; ++block) {
    const Element* part = state_part<Element>(args, args.sequences[first], block);
    Block<Element> memory = {
        keys_of(args.state, part, tile.kv_head), values_of(args.state, part, tile.kv_head),
        block + 1 < end ? token_keys<Element>(args, first, block + 1, tile.kv_head) : next, nullptr,
        nullptr};
    if constexpr (kScaled<Element>) {
      memory.key_scales = scales_behind(memory.keys, args.state.head_dim);
      memory.value_scales = scales_behind(memory.values, padded_dim(args.state));
    }
    for (int32_t token = first; token <= last;) {
      Visible seen = visible(args, token, tile.written, block);
      int32_t next = token + 1;
      for (; next <= last; ++next) {
        Visible other = visible(args, next, tile.written, block);
        if (other.begin != seen.begin || other.end != seen.end) break;
      }
      if (seen.begin < seen.end) {
        int32_t row = (token - tile.first) * tile.heads, rows = (next - token) * tile.heads;
        attend_span<V, Element>(args, tile, row, rows, seen, memory);
      }
      token = next;
    }
  }
}

template <class V, class Element>
void attend_tile(const AttentionArgs& args, const Tile& tile) {
  start<V>(args, tile);
  const int32_t last = tile.first + tile.tokens - 1, begin = first_block(args, tile.first);
  const int32_t end = tile.shared ? begin + tile.shared : end_block(args, last, tile.written);
  const auto* next = static_cast<const Element*>(tile.next);
  // What a token does not share is read behind what it shares, or behind the token before it.
  const auto own = [&](int32_t token) {
    if (!tile.shared || token > last || end == end_block(args, token, 0)) return next;
    return token_keys<Element>(args, token, end, tile.kv_head);
  };
  attend_blocks<V, Element>(args, tile, tile.first, last, begin, end, own(tile.first));
  for (int32_t token = tile.first; tile.shared && token <= last; ++token) {
    attend_blocks<V, Element>(args, tile, token, token, end, end_block(args, token, 0),
                              own(token + 1));
  }
  finish<V>(args, tile);
}

inline int32_t tile_heads(const AttentionArgs& args) {
  int32_t group = args.heads / args.state.kv_heads;
  return group < kQueryRows ? group : kQueryRows;
}

// Tokens that share a tile (see Tile), and what a query head of them costs.
struct Run {
  int32_t first, tokens, shared;
  int64_t cost;
};

// This worker's query heads of some tokens: tile by tile, never across kv heads.
template <class V, class Element>
void attend_heads(const AttentionArgs& args, const Run& run, int32_t begin, int32_t end,
                  Worker worker) {
  int32_t group = args.heads / args.state.kv_heads;
  Tile tile;
  tile.first = run.first;
  tile.tokens = run.tokens;
  tile.shared = run.shared;
  tile.written = written_of(args, run.first);
  tile.stride = padded_dim(args.state);
  tile.q = worker_scratch<V>(args, worker);
  tile.out = tile.q + kQueryRows * tile.stride;
  tile.weights = tile.out + kQueryRows * tile.stride;
  tile.totals = tile.weights + kQueryRows * kBlockTokens;
  tile.maxima = tile.totals + kQueryRows * kLanes;
  tile.factors = tile.maxima + kQueryRows;
  for (int32_t head = begin; head < end;) {
    int32_t group_end = (head / group + 1) * group, limit = head + tile_heads(args);
    int32_t next = group_end < limit ? group_end : limit;
    tile.head = head;
    tile.heads = (next < end ? next : end) - head;
    tile.kv_head = head / group;
    head += tile.heads;
    const bool here = head < end;  // is the next tile
    const int32_t token = here ? run.first : std::min(run.first + run.tokens, args.q.rows - 1);
    tile.next = token_keys<Element>(args, token, first_block(args, token), here ? head / group : 0);
    attend_tile<V, Element>(args, tile);
  }
}

// Joins tokens to runs. Sequences are joined as long as there is a run for every worker.
class Runs {
 public:
  Runs(const AttentionArgs& args, Worker worker)
      : args_(args),
        rows_(args.q.rows),
        most_(kQueryRows / tile_heads(args)),
        most_joined_(std::min(most_, rows_ / worker.count)) {}

  // Calls `body` with each.
  template <class Body>
  void each(Body body) const {
    Run run{};
    for (; run.first < rows_; run.first += run.tokens) {
      run = {run.first, 1, 0, 0};
      while (run.tokens < most_ && run.first + run.tokens < rows_ && join(run)) ++run.tokens;
      const int32_t written = written_of(args_, run.first);
      for (int32_t row = run.first; row < run.first + run.tokens; ++row) {
        run.cost += end_visible(args_, row, written) - 1 - first_visible(args_, row) + kFixedCost;
      }
      body(run);
    }
  }

 private:
  static constexpr int64_t kFixedCost = 32;  // of a row, in visible tokens

  bool follows(int32_t row) const {  // the row before it
    return row < rows_ && args_.sequences[row] == args_.sequences[row - 1];
  }
  int32_t blocks(int32_t row) const { return end_block(args_, row, 0) - first_block(args_, row); }

  // Whether the row behind `run` belongs to it.
  bool join(Run& run) const {
    const int32_t row = run.first + run.tokens;
    if (follows(row)) return !run.shared && args_.positions[row] >= args_.positions[row - 1];
    // A single token of its sequence, as all that are joined.
    if (args_.bidirectional || follows(row + 1) || run.tokens >= most_joined_) return false;
    if (run.tokens > 1 && !run.shared) return false;
    if (first_block(args_, row) != first_block(args_, run.first)) return false;
    const int32_t common = shared_blocks(args_, row, run.first);
    const int32_t shared = run.shared ? std::min(run.shared, common) : common;
    const int32_t before = run.shared ? run.shared : blocks(run.first);
    // Most of what it sees, and what those before it share, stays shared.
    if (2 * shared <= std::max(blocks(row), before)) return false;
    run.shared = shared;
    return true;
  }

  const AttentionArgs& args_;
  int32_t rows_, most_, most_joined_;
};

// The unit of sharing is one query head of one run, weighted by the tokens that it sees: a worker
// takes the units whose start, in cost, falls into its part of the whole.
template <class V>
void attend(const AttentionArgs& args, Worker worker) {
  auto heads = args.state.type == KvType::f32   ? attend_heads<V, float>
               : args.state.type == KvType::f16 ? attend_heads<V, Half>
                                                : attend_heads<V, int8_t>;
  int64_t total = 0, before = 0;
  const Runs runs(args, worker);
  runs.each([&](const Run& run) { total += run.cost * args.heads; });
  int64_t begin = total * worker.index / worker.count;
  int64_t end = total * (worker.index + 1) / worker.count;
  runs.each([&](const Run& run) {
    auto head_at = [&](int64_t point) {
      int64_t head = (point - before + run.cost - 1) / run.cost;
      return int32_t(point <= before ? 0 : head < args.heads ? head : args.heads);
    };
    int32_t from = head_at(begin), to = head_at(end);
    if (from < to) heads(args, run, from, to, worker);
    before += run.cost * args.heads;
  });
}

template <class V>
constexpr AttentionKernels attention_kernels() {
  return {scratch_bytes<V>, write<V>, attend<V>};
}

}  // namespace
}  // namespace edge
