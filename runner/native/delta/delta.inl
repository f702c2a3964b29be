// The gated delta rule over virtual lanes (contract: delta.h). Included once per instruction set.
//
// The unit of work is one key head, with its value heads, of the tokens of one sequence: a unit
// reads and writes its own part of each page, so workers never meet.
#include <cmath>

#include "attention/tiles.inl"
#include "delta/delta.h"
#include "simd/math.h"

namespace edge {
namespace {

// How a key head's part of a page is laid out, in floats.
struct FoldLayout {
  int32_t group;                  // value heads of a key head
  int64_t k, v;                   // padded k_dim and v_dim
  int64_t gates;                  // padded `group`
  int64_t matrix;                 // of one value head
  int64_t keys, updates, decays;  // where they begin
  int64_t size;

  explicit FoldLayout(const FoldState& state)
      : group(state.heads / state.key_heads),
        k(round_up(state.k_dim, kLanes)),
        v(round_up(state.v_dim, kLanes)),
        gates(round_up(group, kLanes)),
        matrix(state.k_dim * v),
        keys(kLanes + 2 * group * matrix),
        updates(keys + kBlockTokens * k),
        decays(updates + kBlockTokens * group * v),
        size(decays + kBlockTokens * gates) {}
};

// One key head's part of a page.
struct FoldPage {
  float* part;
  const FoldLayout& layout;

  int32_t& block() const { return *reinterpret_cast<int32_t*>(part); }
  float* start() const { return part + kLanes; }
  float* current() const { return start() + layout.group * layout.matrix; }
  float* keys(int32_t row) const { return part + layout.keys + row * layout.k; }
  float* updates(int32_t row, int32_t head) const {
    return part + layout.updates + (int64_t(row) * layout.group + head) * layout.v;
  }
  float* decays(int32_t row) const { return part + layout.decays + row * layout.gates; }
};

// A worker's memory for one block of rows.
struct DeltaScratch {
  float* vectors;   // [2 * kFoldRows][k]: keys, then queries
  float* products;  // [2 * kFoldRows][v]: those of S0
  float* key_dots;  // [kFoldRows][kFoldRows]: kk, then (w * kk)
  float* query_dots;
  float* key_weights;
  float* query_weights;
  float* rest;  // [kFoldRows]: w(t)

  static size_t floats(const FoldLayout& layout) {
    return size_t(2 * kFoldRows * (layout.k + layout.v) + 4 * kFoldRows * kFoldRows + kFoldRows);
  }
  DeltaScratch(float* memory, const FoldLayout& layout)
      : vectors(memory),
        products(vectors + 2 * kFoldRows * layout.k),
        key_dots(products + 2 * kFoldRows * layout.v),
        query_dots(key_dots + kFoldRows * kFoldRows),
        key_weights(query_dots + kFoldRows * kFoldRows),
        query_weights(key_weights + kFoldRows * kFoldRows),
        rest(query_weights + kFoldRows * kFoldRows) {}
};

template <class V>
size_t delta_scratch_bytes(const DeltaArgs& args) {
  return sizeof(float) * DeltaScratch::floats(FoldLayout(args.state));
}

inline FoldPage page_of(const DeltaArgs& args, const FoldLayout& layout, int32_t sequence,
                        int32_t page, int32_t key_head) {
  float* part = reinterpret_cast<float*>(args.part(sequence, page));
  return {part + key_head * layout.size, layout};
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

// out[r][..] = sum over i of x[r][i] * matrix[i][..] of kRows rows, kGroups vectors at a time while
// as many are left, then half as many.
template <class V, int kRows, int kGroups>
void multiply_columns(const float* x, int64_t x_stride, const float* matrix, int32_t k_dim,
                      int64_t v, int64_t column, float* out) {
  for (; column + kGroups * kLanes <= v; column += kGroups * kLanes) {
    V sums[kRows][kGroups];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int c = 0; c < kGroups; ++c) sums[r][c] = V::broadcast(0.0f);
    }
    for (int32_t i = 0; i < k_dim; ++i) {
      V row[kGroups];
#pragma GCC unroll 8
      for (int c = 0; c < kGroups; ++c) row[c] = V::load(matrix + i * v + column + c * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const V factor = V::broadcast(x[r * x_stride + i]);
#pragma GCC unroll 8
        for (int c = 0; c < kGroups; ++c) sums[r][c] = fma(factor, row[c], sums[r][c]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int c = 0; c < kGroups; ++c) sums[r][c].store(out + r * v + column + c * kLanes);
    }
  }
  if constexpr (kGroups > 1) {
    multiply_columns<V, kRows, kGroups / 2>(x, x_stride, matrix, k_dim, v, column, out);
  }
}

template <class V>
void multiply_rows(const float* x, int64_t x_stride, int32_t rows, const float* matrix,
                   int32_t k_dim, int64_t v, float* out) {
  each_row_tile(rows, [&](int32_t row, auto count) {
    constexpr int kRows = decltype(count)::value;
    multiply_columns<V, kRows, wide_groups<V>(kRows, 8)>(x + row * x_stride, x_stride, matrix,
                                                         k_dim, v, 0, out + row * v);
  });
}

template <class V>
inline float dot(const float* x, const float* y, int64_t size) {
  V total = V::broadcast(0.0f);
  for (int64_t i = 0; i < size; i += kLanes) total = fma(V::load(x + i), V::load(y + i), total);
  return sum(total);
}

// to = x / sqrt(sum of x^2 + eps) * scale; the padding becomes zero.
template <class V>
void normalize(const float* x, int32_t size, float eps, float scale, float* to) {
  V squares = V::broadcast(0.0f);
  const auto part = [=](int32_t i) {
    const int32_t left = size - i;
    return V::load_first(x + i, left < kLanes ? left : kLanes);
  };
  for (int32_t i = 0; i < size; i += kLanes) squares = fma(part(i), part(i), squares);
  const V inverse = V::broadcast(1.0f / std::sqrt(sum(squares) + eps));
  const V factor = V::broadcast(scale);
  for (int32_t i = 0; i < size; i += kLanes) (part(i) * inverse * factor).store(to + i);
}

// The matrices behind a whole block of a page, made of those before it; `to` may be `from`.
template <class V>
void fold_block(const DeltaArgs& args, const FoldPage& page, int32_t block, const float* from,
                float* to) {
  constexpr int kTile = 4;  // rows of the matrix that share the loads of u
  const FoldLayout& layout = page.layout;
  const int32_t first = block * kFoldRows, k_dim = args.state.k_dim;
  for (int32_t head = 0; head < layout.group; ++head) {
    float weights[kFoldRows];
    const float rest = suffix_products(page, first, kFoldRows - 1, head, weights);
    for (int32_t i = 0; i < k_dim; i += kTile) {
      const int32_t rows = k_dim - i < kTile ? k_dim - i : kTile;
      float factors[kFoldRows][kTile];
      for (int32_t j = 0; j < kFoldRows; ++j) {
        for (int32_t r = 0; r < kTile; ++r) {
          factors[j][r] = weights[j] * page.keys(first + j)[i + r];  // keys are padded to 16
        }
      }
      const float* old = from + i * layout.v;
      float* made = to + i * layout.v;
      for (int64_t c = 0; c < layout.v; c += kLanes) {
        V sums[kTile];
        for (int32_t r = 0; r < rows; ++r) {
          sums[r] = V::broadcast(rest) * V::load(old + r * layout.v + c);
        }
        for (int32_t r = rows; r < kTile; ++r) sums[r] = V::broadcast(0.0f);
        for (int32_t j = 0; j < kFoldRows; ++j) {
          const V update = V::load(page.updates(first + j, head) + c);
#pragma GCC unroll 4
          for (int r = 0; r < kTile; ++r) {
            sums[r] = fma(V::broadcast(factors[j][r]), update, sums[r]);
          }
        }
        for (int32_t r = 0; r < rows; ++r) sums[r].store(made + r * layout.v + c);
      }
    }
    from += layout.matrix;
    to += layout.matrix;
  }
}

// Folds blocks of `page` from `done` on, which `from` is the matrices before, up to `block`.
template <class V>
void fold_until(const DeltaArgs& args, const FoldPage& page, int32_t done, int32_t block,
                const float* from, float* to) {
  for (; done < block; ++done, from = to) fold_block<V>(args, page, done, from, to);
}

// The matrices before the block of this position, which is about to be written.
template <class V>
const float* matrices_before(const DeltaArgs& args, const FoldPage& page, int32_t sequence,
                             int32_t position, int32_t key_head) {
  constexpr int32_t kBlocks = kBlockTokens / kFoldRows;
  const int32_t block = position % kBlockTokens / kFoldRows;
  const auto known = [](const FoldPage& of, int32_t most) {  // of a page of another past: nothing
    const int32_t kept = of.block();
    return kept < 0 || kept > most ? 0 : kept;
  };
  if (position % kBlockTokens == 0) {
    page.block() = 0;
    if (position == 0) {
      const int64_t count = page.layout.group * page.layout.matrix;
      for (int64_t i = 0; i < count; ++i) page.start()[i] = 0.0f;
    } else {
      const FoldPage before =
          page_of(args, page.layout, sequence, position / kBlockTokens - 1, key_head);
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

// One value head of some rows of a block.
struct DeltaRows {
  int32_t token, count;  // rows of the flat batch
  int32_t row;           // the first one's place in the page
  int32_t before;        // rows of the block before it
};

// The weights of what u_j gives to each row: `dots` times w(j, t).
template <class V>
void weigh_rows(const FoldPage& page, const DeltaRows& rows, int32_t head,
                const DeltaScratch& scratch) {
  const int32_t first = rows.row - rows.before;
  for (int32_t r = 0; r < rows.count; ++r) {
    float weights[kFoldRows] = {};
    const int32_t last = rows.before + r;
    scratch.rest[r] = suffix_products(page, first, last, head, weights);
    const int32_t at = r * kFoldRows;
    const V w = V::load(weights);
    (w * V::load(scratch.key_dots + at)).store(scratch.key_weights + at);
    (w * V::load(scratch.query_dots + at)).store(scratch.query_weights + at);
  }
}

template <class V>
void run_head(const DeltaArgs& args, const FoldPage& page, const DeltaRows& rows, int32_t key_head,
              int32_t head, const float* matrix, const DeltaScratch& scratch) {
  static_assert(kFoldRows == kLanes, "the weights of a row are one vector");
  const FoldLayout& layout = page.layout;
  const int32_t number = key_head * layout.group + head, first = rows.row - rows.before;
  multiply_rows<V>(scratch.vectors, layout.k, 2 * rows.count, matrix, args.state.k_dim, layout.v,
                   scratch.products);
  weigh_rows<V>(page, rows, head, scratch);
  const int64_t column = int64_t(number) * args.state.v_dim;
  for (int32_t c = 0; c < args.state.v_dim; c += kLanes) {
    const int32_t left = args.state.v_dim - c, count = left < kLanes ? left : kLanes;
    for (int32_t r = 0; r < rows.count; ++r) {
      const int32_t token = rows.token + r, last = rows.before + r;
      const float *key_weights = scratch.key_weights + r * kFoldRows,
                  *query_weights = scratch.query_weights + r * kFoldRows;
      const V rest = V::broadcast(scratch.rest[r]);
      V predicted = rest * V::load(scratch.products + r * layout.v + c);
      V output = rest * V::load(scratch.products + (rows.count + r) * layout.v + c);
      for (int32_t j = 0; j < last; ++j) {
        const V update = V::load(page.updates(first + j, head) + c);
        predicted = fma(V::broadcast(key_weights[j]), update, predicted);
        output = fma(V::broadcast(query_weights[j]), update, output);
      }
      const V value = V::load_first(args.v.row(token) + column + c, count);
      const V update = V::broadcast(args.strength.row(token)[number]) * (value - predicted);
      update.store(page.updates(first + last, head) + c);
      output = fma(V::broadcast(query_weights[last]), update, output);
      output.store_first(args.out.row(token) + column + c, count);
    }
  }
}

// Rows of one block, all of one sequence.
template <class V>
void run_rows(const DeltaArgs& args, const FoldLayout& layout, const DeltaRows& rows,
              int32_t key_head, const DeltaScratch& scratch) {
  const int32_t sequence = args.sequences[rows.token], position = args.positions[rows.token];
  const FoldPage page = page_of(args, layout, sequence, position / kBlockTokens, key_head);
  const float* matrices = matrices_before<V>(args, page, sequence, position, key_head);
  const int32_t first = rows.row - rows.before;
  float *keys = scratch.vectors, *queries = keys + rows.count * layout.k;
  for (int32_t r = 0; r < rows.count; ++r) {
    const int32_t token = rows.token + r, last = rows.before + r;
    const int64_t column = int64_t(key_head) * args.state.k_dim;
    float *key = keys + r * layout.k, *query = queries + r * layout.k;
    normalize<V>(args.k.row(token) + column, args.state.k_dim, args.eps, 1.0f, key);
    normalize<V>(args.q.row(token) + column, args.state.k_dim, args.eps, args.scale, query);
    for (int64_t i = 0; i < layout.k; i += kLanes) {
      V::load(key + i).store(page.keys(rows.row + r) + i);
    }
    for (int32_t h = 0; h < layout.group; ++h) {
      page.decays(rows.row + r)[h] = args.decay.row(token)[key_head * layout.group + h];
    }
    float *key_dots = scratch.key_dots + r * kFoldRows,
          *query_dots = scratch.query_dots + r * kFoldRows;
    for (int32_t j = 0; j < kFoldRows; ++j) {
      key_dots[j] = j < last ? dot<V>(page.keys(first + j), key, layout.k) : 0.0f;
      query_dots[j] = j <= last ? dot<V>(page.keys(first + j), query, layout.k) : 0.0f;
    }
  }
  for (int32_t head = 0; head < layout.group; ++head) {
    run_head<V>(args, page, rows, key_head, head, matrices + head * layout.matrix, scratch);
  }
}

// A worker takes the units whose start, in tokens, falls into its part of the whole.
template <class V>
void delta(const DeltaArgs& args, Worker worker) {
  const FoldLayout layout(args.state);
  const DeltaScratch scratch(
      reinterpret_cast<float*>(args.scratch + worker.index * delta_scratch_bytes<V>(args)), layout);
  const int32_t tokens = args.v.rows, heads = args.state.key_heads;
  const int64_t total = int64_t(tokens) * heads;
  const int64_t begin = total * worker.index / worker.count;
  const int64_t end = total * (worker.index + 1) / worker.count;
  int64_t before = 0;  // tokens times heads of the units so far
  for (int32_t run = 0, next; run < tokens; run = next) {
    for (next = run; next < tokens && args.sequences[next] == args.sequences[run];) ++next;
    for (int32_t key_head = 0; key_head < heads; ++key_head, before += next - run) {
      if (before < begin || before >= end) continue;
      for (int32_t token = run; token < next;) {
        DeltaRows rows;
        rows.token = token;
        rows.row = args.positions[token] % kBlockTokens;
        rows.before = rows.row % kFoldRows;
        const int32_t room = kFoldRows - rows.before;
        rows.count = next - token < room ? next - token : room;
        run_rows<V>(args, layout, rows, key_head, scratch);
        token += rows.count;
      }
    }
  }
}

// log(1 + e^x) = max(x, 0) + log(1 + y) with y = e^-|x|, and log(1 + y) = 2 artanh(y / (2 + y)),
// whose argument is at most 1 / 3.
template <class V>
inline V softplus(V x) {
  const V y = exponential(-abs(x));
  const V s = y / (V::broadcast(2.0f) + y), u = s * s;
  V p = V::broadcast(1.0f / 17);
#pragma GCC unroll 8
  for (int n = 15; n > 0; n -= 2) p = fma(p, u, V::broadcast(1.0f / float(n)));
  return max(x, V::broadcast(0.0f)) + (s + s) * p;
}

template <class V>
void decay(Matrix x, const float* rate, const float* bias, Matrix out, Worker worker) {
  const Share mine = share(x.rows, 1, worker);
  for (int32_t c = 0; c < x.cols; c += kLanes) {
    const int32_t left = x.cols - c, count = left < kLanes ? left : kLanes;
    const V rates = -exponential(V::load_first(rate + c, count));
    const V biases = V::load_first(bias + c, count);
    for (int64_t row = mine.begin; row < mine.end; ++row) {
      const V steps = softplus(V::load_first(x.row(row) + c, count) + biases);
      exponential(rates * steps).store_first(out.row(row) + c, count);
    }
  }
}

template <class V>
constexpr DeltaKernels delta_kernels() {
  return {delta_scratch_bytes<V>, delta<V>, decay<V>};
}

}  // namespace
}  // namespace edge
