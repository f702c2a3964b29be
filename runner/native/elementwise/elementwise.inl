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
inline void map(Matrix x, Matrix y, Worker worker, Function function) {
  each_group(y, worker, [=](int64_t row, int32_t column, int32_t count) {
    const float* from = x.row(row) + column;
    float* to = y.row(row) + column;
    if (count == kLanes) {
      function(V::load(from)).store(to);
    } else {
      function(V::load_first(from, count)).store_first(to, count);
    }
  });
}

template <class V, class Function>
inline void combine(Matrix a, Matrix b, Matrix y, Worker worker, Function function) {
  each_group(y, worker, [=](int64_t row, int32_t column, int32_t count) {
    const float *left = a.row(row) + column, *right = b.row(row) + column;
    float* to = y.row(row) + column;
    if (count == kLanes) {
      function(V::load(left), V::load(right)).store(to);
    } else {
      function(V::load_first(left, count), V::load_first(right, count)).store_first(to, count);
    }
  });
}

template <class V>
void silu(Matrix x, Matrix y, Worker worker) {
  map<V>(x, y, worker, [](V a) { return silu_of(a); });
}

template <class V>
void gelu(Matrix x, Matrix y, Worker worker) {
  map<V>(x, y, worker, [](V a) { return gelu_of(a); });
}

template <class V>
void silu_mul(Matrix a, Matrix b, Matrix y, Worker worker) {
  combine<V>(a, b, y, worker, [](V gate, V up) { return silu_of(gate) * up; });
}

template <class V>
void gelu_mul(Matrix a, Matrix b, Matrix y, Worker worker) {
  combine<V>(a, b, y, worker, [](V gate, V up) { return gelu_of(gate) * up; });
}

template <class V>
void mul(Matrix a, Matrix b, Matrix y, Worker worker) {
  combine<V>(a, b, y, worker, [](V left, V right) { return left * right; });
}

template <class V>
void add(Matrix a, Matrix b, Matrix y, Worker worker) {
  combine<V>(a, b, y, worker, [](V left, V right) { return left + right; });
}

template <class V>
void scale(Matrix x, float factor, Matrix y, Worker worker) {
  map<V>(x, y, worker, [=](V a) { return a * V::broadcast(factor); });
}

template <class V>
void softcap(Matrix x, float cap, Matrix y, Worker worker) {
  map<V>(x, y, worker,
         [=](V a) { return hyperbolic_tangent(a / V::broadcast(cap)) * V::broadcast(cap); });
}

template <class V>
void select_rows(Matrix x, const int32_t* rows, Matrix y, Worker worker) {
  each_group(y, worker, [=](int64_t row, int32_t column, int32_t count) {
    const float* from = x.row(rows[row]) + column;
    V::load_first(from, count).store_first(y.row(row) + column, count);
  });
}

template <class V>
constexpr ElementwiseKernels elementwise_kernels() {
  return {silu<V>, gelu<V>,  mul<V>,     silu_mul<V>,   gelu_mul<V>,
          add<V>,  scale<V>, softcap<V>, select_rows<V>};
}

}  // namespace
}  // namespace edge
