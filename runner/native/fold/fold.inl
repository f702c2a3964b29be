// Recurrences over a fold, in virtual lanes (contract: fold.h). Included once per instruction set.
//
// The unit of work is one part of the tokens of one sequence: a unit reads and writes its own part
// of each page, so workers never meet.
#include <cmath>

#include "fold/pages.inl"
#include "simd/math.h"

namespace edge {
namespace {

// A worker's memory for one block of rows.
struct FoldScratch {
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
  FoldScratch(float* memory, const FoldLayout& layout)
      : vectors(memory),
        products(vectors + 2 * kFoldRows * layout.k),
        key_dots(products + 2 * kFoldRows * layout.v),
        query_dots(key_dots + kFoldRows * kFoldRows),
        key_weights(query_dots + kFoldRows * kFoldRows),
        query_weights(key_weights + kFoldRows * kFoldRows),
        rest(query_weights + kFoldRows * kFoldRows) {}
};

template <class V>
size_t fold_scratch_bytes(const FoldState& state) {
  return sizeof(float) * FoldScratch::floats(FoldLayout(state));
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

// to = x, padded with zeros.
template <class V>
void copy_padded(const float* x, int32_t size, float* to) {
  for (int32_t i = 0; i < size; i += kLanes) {
    const int32_t left = size - i;
    V::load_first(x + i, left < kLanes ? left : kLanes).store(to + i);
  }
}

// Some rows of a block.
struct FoldRows {
  int32_t token, count;  // rows of the flat batch
  int32_t row;           // the first one's place in the page
  int32_t before;        // rows of the block before it
};

// What the two recurrences do differently. Of a row's key and query the scratch has what they are
// multiplied with; a recurrence that does not correct has no use for the keys there.
struct DeltaRule {
  static constexpr bool kCorrects = true;

  template <class V>
  static void take(const FoldArgs& args, int32_t token, int32_t key_head, float* key,
                   float* query) {
    const int32_t size = args.state.k_dim;
    const int64_t column = int64_t(key_head) * size;
    normalize<V>(args.k.row(token) + column, size, args.eps, 1.0f, key);
    normalize<V>(args.q.row(token) + column, size, args.eps, args.scale, query);
  }
  template <class V>
  static void decays(const FoldArgs& args, int32_t token, const FoldPart& part, float* to) {
    for (int32_t h = 0; h < part.heads; ++h) to[h] = args.decay.row(token)[part.first + h];
  }
};

struct StateSpace {
  static constexpr bool kCorrects = false;

  template <class V>
  static void take(const FoldArgs& args, int32_t token, int32_t key_head, float* key,
                   float* query) {
    const int32_t size = args.state.k_dim;
    const int64_t column = int64_t(key_head) * size;
    copy_padded<V>(args.k.row(token) + column, size, key);
    copy_padded<V>(args.q.row(token) + column, size, query);
  }
  template <class V>
  static void decays(const FoldArgs& args, int32_t token, const FoldPart& part, float* to) {
    static_assert(kFoldHeads <= kLanes, "the decays of a part are one vector");
    const V rates = exponential(V::load_first(args.rate + part.first, part.heads));
    const V steps = V::load_first(args.strength.row(token) + part.first, part.heads);
    exponential(-(rates * steps)).store_first(to, part.heads);
  }
};

// The weights of what u_j gives to each row: `dots` times w(j, t).
template <class V, class Rule>
void weigh_rows(const FoldPage& page, const FoldRows& rows, int32_t head,
                const FoldScratch& scratch) {
  const int32_t first = rows.row - rows.before;
  for (int32_t r = 0; r < rows.count; ++r) {
    float weights[kFoldRows] = {};
    const int32_t last = rows.before + r;
    scratch.rest[r] = suffix_products(page, first, last, head, weights);
    const int32_t at = r * kFoldRows;
    const V w = V::load(weights);
    if (Rule::kCorrects) (w * V::load(scratch.key_dots + at)).store(scratch.key_weights + at);
    (w * V::load(scratch.query_dots + at)).store(scratch.query_weights + at);
  }
}

// One value head, the `head`-th of the part.
template <class V, class Rule>
void run_head(const FoldArgs& args, const FoldPage& page, const FoldRows& rows,
              const FoldPart& part, int32_t head, const float* matrix, const float* vectors,
              const FoldScratch& scratch) {
  static_assert(kFoldRows == kLanes, "the weights of a row are one vector");
  const FoldLayout& layout = page.layout;
  const int32_t number = part.first + head, first = rows.row - rows.before;
  const int32_t products = Rule::kCorrects ? 2 * rows.count : rows.count;
  multiply_rows<V>(vectors, layout.k, products, matrix, args.state.k_dim, layout.v,
                   scratch.products);
  const float* of_queries = scratch.products + (products - rows.count) * layout.v;
  weigh_rows<V, Rule>(page, rows, head, scratch);
  const int64_t column = int64_t(number) * args.state.v_dim;
  for (int32_t c = 0; c < args.state.v_dim; c += kLanes) {
    const int32_t left = args.state.v_dim - c, count = left < kLanes ? left : kLanes;
    for (int32_t r = 0; r < rows.count; ++r) {
      const int32_t token = rows.token + r, last = rows.before + r;
      const float *key_weights = scratch.key_weights + r * kFoldRows,
                  *query_weights = scratch.query_weights + r * kFoldRows;
      const V rest = V::broadcast(scratch.rest[r]);
      const V strength = V::broadcast(args.strength.row(token)[number]);
      const V value = V::load_first(args.v.row(token) + column + c, count);
      V output = rest * V::load(of_queries + r * layout.v + c);
      V added = value;
      if constexpr (Rule::kCorrects) {
        V predicted = rest * V::load(scratch.products + r * layout.v + c);
        for (int32_t j = 0; j < last; ++j) {
          const V made = V::load(page.updates(first + j, head) + c);
          predicted = fma(V::broadcast(key_weights[j]), made, predicted);
          output = fma(V::broadcast(query_weights[j]), made, output);
        }
        added = value - predicted;
      } else {
        for (int32_t j = 0; j < last; ++j) {
          const V made = V::load(page.updates(first + j, head) + c);
          output = fma(V::broadcast(query_weights[j]), made, output);
        }
      }
      const V update = strength * added;
      update.store(page.updates(first + last, head) + c);
      output = fma(V::broadcast(query_weights[last]), update, output);
      if constexpr (!Rule::kCorrects) output = fma(V::broadcast(args.skip[number]), value, output);
      output.store_first(args.out.row(token) + column + c, count);
    }
  }
}

// Rows of one block, all of one sequence.
template <class V, class Rule>
void run_rows(const FoldArgs& args, const FoldLayout& layout, const FoldRows& rows,
              const FoldPart& part, const FoldScratch& scratch) {
  const int32_t sequence = args.sequences[rows.token], position = args.positions[rows.token];
  const FoldPage page = page_of(args, layout, part, sequence, position / kBlockTokens);
  const float* matrices = matrices_before<V>(args, page, sequence, position, part);
  const int32_t first = rows.row - rows.before;
  float *keys = scratch.vectors, *queries = keys + rows.count * layout.k;
  for (int32_t r = 0; r < rows.count; ++r) {
    const int32_t token = rows.token + r, last = rows.before + r;
    float *key = keys + r * layout.k, *query = queries + r * layout.k;
    Rule::template take<V>(args, token, part.key_head, key, query);
    for (int64_t i = 0; i < layout.k; i += kLanes) {
      V::load(key + i).store(page.keys(rows.row + r) + i);
    }
    Rule::template decays<V>(args, token, part, page.decays(rows.row + r));
    float *key_dots = scratch.key_dots + r * kFoldRows,
          *query_dots = scratch.query_dots + r * kFoldRows;
    for (int32_t j = 0; j < kFoldRows; ++j) {
      if (Rule::kCorrects) {
        key_dots[j] = j < last ? dot<V>(page.keys(first + j), key, layout.k) : 0.0f;
      }
      query_dots[j] = j <= last ? dot<V>(page.keys(first + j), query, layout.k) : 0.0f;
    }
  }
  const float* vectors = Rule::kCorrects ? keys : queries;
  for (int32_t head = 0; head < part.heads; ++head) {
    run_head<V, Rule>(args, page, rows, part, head, matrices + head * layout.matrix, vectors,
                      scratch);
  }
}

// A worker takes the units whose start, in tokens, falls into its part of the whole.
template <class V, class Rule>
void run_fold(const FoldArgs& args, Worker worker) {
  const FoldLayout layout(args.state);
  uint8_t* memory = args.scratch + worker.index * fold_scratch_bytes<V>(args.state);
  const FoldScratch scratch(reinterpret_cast<float*>(memory), layout);
  const int32_t tokens = args.v.rows, parts = args.state.key_heads * layout.split;
  const int64_t total = int64_t(tokens) * parts;
  const int64_t begin = total * worker.index / worker.count;
  const int64_t end = total * (worker.index + 1) / worker.count;
  int64_t before = 0;  // tokens times parts of the units so far
  for (int32_t run = 0, next; run < tokens; run = next) {
    for (next = run; next < tokens && args.sequences[next] == args.sequences[run];) ++next;
    for (int32_t number = 0; number < parts; ++number, before += next - run) {
      if (before < begin || before >= end) continue;
      const FoldPart part(layout, number);
      for (int32_t token = run; token < next;) {
        FoldRows rows;
        rows.token = token;
        rows.row = args.positions[token] % kBlockTokens;
        rows.before = rows.row % kFoldRows;
        const int32_t room = kFoldRows - rows.before;
        rows.count = next - token < room ? next - token : room;
        run_rows<V, Rule>(args, layout, rows, part, scratch);
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
void time_step(Matrix x, const float* bias, float low, float high, Matrix out, Worker worker) {
  const Share mine = share(x.rows, 1, worker);
  const V least = V::broadcast(low), most = V::broadcast(high);
  for (int32_t c = 0; c < x.cols; c += kLanes) {
    const int32_t left = x.cols - c, count = left < kLanes ? left : kLanes;
    const V biases = V::load_first(bias + c, count);
    for (int64_t row = mine.begin; row < mine.end; ++row) {
      const V steps = softplus(V::load_first(x.row(row) + c, count) + biases);
      min(most, max(least, steps)).store_first(out.row(row) + c, count);  // NaN stays
    }
  }
}

template <class V>
constexpr FoldKernels fold_kernels() {
  return {fold_scratch_bytes<V>, run_fold<V, DeltaRule>, run_fold<V, StateSpace>, decay<V>,
          time_step<V>};
}

}  // namespace
}  // namespace edge
