// The pages of a fold: where a part lies, and the matrices before its rows (contract: fold.h).
// Included by fold.inl.
#include "attention/tiles.inl"
#include "fold/fold.h"

namespace edge {
namespace {

// How a part of a page is laid out, in floats, and how many there are.
struct FoldLayout {
  int32_t group;                  // value heads of a key head
  int32_t split;                  // parts of a key head
  int32_t heads;                  // value heads of a part; the last of a key head may have fewer
  int64_t k, v;                   // padded k_dim and v_dim
  int64_t gates;                  // padded `heads`
  int64_t matrix;                 // of one value head
  int64_t keys, updates, decays;  // where they begin
  int64_t size;

  explicit FoldLayout(const FoldState& state)
      : group(state.heads / state.key_heads),
        split((group + kFoldHeads - 1) / kFoldHeads),
        heads((group + split - 1) / split),
        k(round_up(state.k_dim, kLanes)),
        v(round_up(state.v_dim, kLanes)),
        gates(round_up(heads, kLanes)),
        matrix(state.k_dim * v),
        keys(kLanes + 2 * heads * matrix),
        updates(keys + kBlockTokens * k),
        decays(updates + kBlockTokens * heads * v),
        size(decays + kBlockTokens * gates) {}
};

// Some value heads of one key head.
struct FoldPart {
  int32_t index;  // among all parts
  int32_t key_head;
  int32_t first;  // its first value head
  int32_t heads;

  FoldPart(const FoldLayout& layout, int32_t number) : index(number) {
    key_head = number / layout.split;
    const int32_t before = number % layout.split * layout.heads, left = layout.group - before;
    first = key_head * layout.group + before;
    heads = left < layout.heads ? left : layout.heads;
  }
};

// One part of a page.
struct FoldPage {
  float* data;
  const FoldLayout& layout;
  int32_t heads;  // of the part

  int32_t& block() const { return *reinterpret_cast<int32_t*>(data); }
  float* start() const { return data + kLanes; }
  float* current() const { return start() + layout.heads * layout.matrix; }
  float* keys(int32_t row) const { return data + layout.keys + row * layout.k; }
  float* updates(int32_t row, int32_t head) const {
    return data + layout.updates + (int64_t(row) * layout.heads + head) * layout.v;
  }
  float* decays(int32_t row) const { return data + layout.decays + row * layout.gates; }
};

inline FoldPage page_of(const FoldArgs& args, const FoldLayout& layout, const FoldPart& part,
                        int32_t sequence, int32_t page) {
  float* data = reinterpret_cast<float*>(args.part(sequence, page));
  return {data + part.index * layout.size, layout, part.heads};
}

// weights[j] = w(j, last) of the rows 0 to `last` of a block; returns w(last).
inline float suffix_products(const FoldPage& page, int32_t first, int32_t last, int32_t head,
                             float* weights) {
  float product = 1.0f;
  for (int32_t j = last; j >= 0; --j) {
    weights[j] = product;
    product = product * page.decays(first + j)[head];
  }
  return product;
}

// kRows rows of one head's matrix behind a block, kGroups vectors at a time while as many are left,
// then half as many. factors[j * kLanes + r] is what row r gets of row j's update.
template <class V, int kRows, int kGroups>
void fold_columns(const FoldPage& page, int32_t first, int32_t head, float rest,
                  const float* factors, const float* from, int64_t column, float* to) {
  const int64_t v = page.layout.v;
  for (; column + kGroups * kLanes <= v; column += kGroups * kLanes) {
    V sums[kRows][kGroups];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int c = 0; c < kGroups; ++c) {
        sums[r][c] = V::broadcast(rest) * V::load(from + r * v + column + c * kLanes);
      }
    }
    for (int32_t j = 0; j < kFoldRows; ++j) {
      const float* made = page.updates(first + j, head) + column;
      V update[kGroups];
#pragma GCC unroll 8
      for (int c = 0; c < kGroups; ++c) update[c] = V::load(made + c * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const V factor = V::broadcast(factors[j * kLanes + r]);
#pragma GCC unroll 8
        for (int c = 0; c < kGroups; ++c) sums[r][c] = fma(factor, update[c], sums[r][c]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int c = 0; c < kGroups; ++c) sums[r][c].store(to + r * v + column + c * kLanes);
    }
  }
  if constexpr (kGroups > 1) {
    fold_columns<V, kRows, kGroups / 2>(page, first, head, rest, factors, from, column, to);
  }
}

// The matrices behind a whole block of a page, made of those before it; `to` may be `from`.
template <class V>
void fold_block(const FoldArgs& args, const FoldPage& page, int32_t block, const float* from,
                float* to) {
  const FoldLayout& layout = page.layout;
  const int32_t first = block * kFoldRows, k_dim = args.state.k_dim;
  for (int32_t head = 0; head < page.heads; ++head) {
    float weights[kFoldRows];
    const float rest = suffix_products(page, first, kFoldRows - 1, head, weights);
    for (int32_t i = 0; i < k_dim; i += kLanes) {
      float factors[kFoldRows][kLanes];
      for (int32_t j = 0; j < kFoldRows; ++j) {  // keys are padded to 16
        (V::broadcast(weights[j]) * V::load(page.keys(first + j) + i)).store(factors[j]);
      }
      each_row_tile(k_dim - i < kLanes ? k_dim - i : kLanes, [&](int32_t row, auto count) {
        constexpr int kRows = decltype(count)::value;
        const int64_t begin = (i + row) * layout.v;
        fold_columns<V, kRows, wide_groups<V>(kRows, 8)>(page, first, head, rest, factors[0] + row,
                                                         from + begin, 0, to + begin);
      });
    }
    from += layout.matrix;
    to += layout.matrix;
  }
}

// Folds blocks of `page` from `done` on, which `from` is the matrices before, up to `block`.
template <class V>
void fold_until(const FoldArgs& args, const FoldPage& page, int32_t done, int32_t block,
                const float* from, float* to) {
  for (; done < block; ++done, from = to) fold_block<V>(args, page, done, from, to);
}

// The matrices before the block of this position, which is about to be written.
template <class V>
const float* matrices_before(const FoldArgs& args, const FoldPage& page, int32_t sequence,
                             int32_t position, const FoldPart& part) {
  constexpr int32_t kBlocks = kBlockTokens / kFoldRows;
  const int32_t block = position % kBlockTokens / kFoldRows;
  const auto known = [](const FoldPage& of, int32_t most) {  // of a page of another past: nothing
    const int32_t kept = of.block();
    return kept < 0 || kept > most ? 0 : kept;
  };
  if (position % kBlockTokens == 0) {
    page.block() = 0;
    if (position == 0) {
      const int64_t count = page.heads * page.layout.matrix;
      for (int64_t i = 0; i < count; ++i) page.start()[i] = 0.0f;
    } else {
      const FoldPage before =
          page_of(args, page.layout, part, sequence, position / kBlockTokens - 1);
      const int32_t done = known(before, kBlocks - 1);
      fold_until<V>(args, before, done, kBlocks, done == 0 ? before.start() : before.current(),
                    page.start());
    }
  } else {
    const int32_t done = known(page, block);
    fold_until<V>(args, page, done, block, done == 0 ? page.start() : page.current(),
                  page.current());
    page.block() = block;
  }
  return block == 0 ? page.start() : page.current();
}

}  // namespace
}  // namespace edge
