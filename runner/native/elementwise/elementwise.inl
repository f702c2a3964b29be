// Elementwise operators over virtual lanes (contract: elementwise.h). Included once per instruction
// set. A matrix may be a column slice of a wider one, so no column past `cols` is written.
#include "elementwise/elementwise.h"
#include "simd/math.h"

namespace edge {
namespace {

// Calls body(row, column, count) on this worker's groups of up to 16 columns.
template <class Body>
inline void each_group(Matrix y, Worker worker, Body body) {
  int32_t groups = (y.cols + kLanes - 1) / kLanes;
  Share mine = share(int64_t(y.rows) * groups, 1, worker);
  int64_t row = mine.begin / groups;
  int32_t column = int32_t(mine.begin % groups) * kLanes;
  for (int64_t item = mine.begin; item < mine.end; ++item) {
    int32_t left = y.cols - column;
    body(row, column, left < kLanes ? left : kLanes);
    column += kLanes;
    if (column >= y.cols) {
      column = 0;
      ++row;
    }
  }
}

template <class V, class Function>
inline void map(const ElementwiseArgs& args, Worker worker, Function function) {
  each_group(args.out, worker, [=](int64_t row, int32_t column, int32_t count) {
    const float* from = args.x.row(row) + column;
    float* to = args.out.row(row) + column;
    if (count == kLanes) {
      function(V::load(from)).store(to);
    } else {
      function(V::load_first(from, count)).store_first(to, count);
    }
  });
}

template <class V, class Function>
inline void combine(const ElementwiseArgs& args, Worker worker, Function function) {
  each_group(args.out, worker, [=](int64_t row, int32_t column, int32_t count) {
    const float *left = args.x.row(row) + column, *right = args.y.row(row) + column;
    float* to = args.out.row(row) + column;
    if (count == kLanes) {
      function(V::load(left), V::load(right)).store(to);
    } else {
      function(V::load_first(left, count), V::load_first(right, count)).store_first(to, count);
    }
  });
}

template <class V>
void silu(const ElementwiseArgs& args, Worker worker) {
  map<V>(args, worker, [](V x) { return silu_of(x); });
}

template <class V>
void sigmoid(const ElementwiseArgs& args, Worker worker) {
  map<V>(args, worker, [](V x) {
    const V one = V::broadcast(1.0f);
    return one / (one + exponential(-x));
  });
}

template <class V>
void gelu(const ElementwiseArgs& args, Worker worker) {
  map<V>(args, worker, [](V x) { return gelu_of(x); });
}

template <class V>
void silu_mul(const ElementwiseArgs& args, Worker worker) {
  combine<V>(args, worker, [](V gate, V up) { return silu_of(gate) * up; });
}

template <class V>
void gelu_mul(const ElementwiseArgs& args, Worker worker) {
  combine<V>(args, worker, [](V gate, V up) { return gelu_of(gate) * up; });
}

template <class V>
void clamped_mul(const ElementwiseArgs& args, Worker worker) {
  const float alpha = args.number, limit = args.limit;
  combine<V>(args, worker, [=](V gate, V up) {
    const V one = V::broadcast(1.0f), most = V::broadcast(limit);
    gate = min(most, gate);  // the second operand where it is NaN
    up = max(-most, min(most, up));
    return gate / (one + exponential(V::broadcast(-alpha) * gate)) * (up + one);
  });
}

template <class V>
void mul(const ElementwiseArgs& args, Worker worker) {
  combine<V>(args, worker, [](V left, V right) { return left * right; });
}

template <class V>
void add(const ElementwiseArgs& args, Worker worker) {
  combine<V>(args, worker, [](V left, V right) { return left + right; });
}

template <class V>
void scale(const ElementwiseArgs& args, Worker worker) {
  const float factor = args.number;
  map<V>(args, worker, [=](V x) { return x * V::broadcast(factor); });
}

template <class V>
void softcap(const ElementwiseArgs& args, Worker worker) {
  const float cap = args.number;
  map<V>(args, worker,
         [=](V x) { return hyperbolic_tangent(x / V::broadcast(cap)) * V::broadcast(cap); });
}

template <class V>
void select_rows(Matrix x, const int32_t* rows, Matrix y, Worker worker) {
  each_group(y, worker, [=](int64_t row, int32_t column, int32_t count) {
    const float* from = x.row(rows[row]) + column;
    V::load_first(from, count).store_first(y.row(row) + column, count);
  });
}

template <class V>
void scale_rows(const ElementwiseArgs& args, Worker worker) {
  each_group(args.out, worker, [&](int64_t row, int32_t column, int32_t count) {
    const V factor = V::broadcast(*args.y.row(row));
    const float* from = args.x.row(row) + column;
    float* to = args.out.row(row) + column;
    if (count == kLanes) {
      (V::load(from) * factor).store(to);
    } else {
      (V::load_first(from, count) * factor).store_first(to, count);
    }
  });
}

template <class V>
void add_scaled(Matrix x, const float* factors, const int32_t* rows, Matrix y) {
  for (int32_t i = 0; i < x.rows; ++i) {
    const V factor = V::broadcast(factors[i]);
    const float* const from = x.row(i);
    float* const to = y.row(rows[i]);
    int32_t column = 0;
    for (; column + kLanes <= x.cols; column += kLanes) {
      fma(factor, V::load(from + column), V::load(to + column)).store(to + column);
    }
    if (const int32_t rest = x.cols - column; rest > 0) {
      fma(factor, V::load_first(from + column, rest), V::load_first(to + column, rest))
          .store_first(to + column, rest);
    }
  }
}

template <class V>
constexpr ElementwiseKernels elementwise_kernels() {
#define EDGE_KERNEL(name) name<V>,
  return {EDGE_ELEMENTWISE(EDGE_KERNEL) silu_mul<V>,
          gelu_mul<V>,
          clamped_mul<V>,
          select_rows<V>,
          scale_rows<V>,
          add_scaled<V>};
#undef EDGE_KERNEL
}

}  // namespace
}  // namespace edge
