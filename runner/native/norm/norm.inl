// RMS norm and layer norm over virtual lanes; norm.h has the contract. Included once per
// instruction set.
#include <algorithm>
#include <cmath>

#include "norm/norm.h"

namespace edge {
namespace {

template <class V>
void rms_norm_run(const float* x, const float* weight, int32_t size, float eps, float* y) {
  int32_t whole = size / kLanes * kLanes, rest = size - whole;
  V squares = V::broadcast(0.0f);
  for (int32_t i = 0; i < whole; i += kLanes) {
    V a = V::load(x + i);
    squares = fma(a, a, squares);
  }
  if (rest) {
    V a = V::load_first(x + whole, rest);
    squares = fma(a, a, squares);
  }
  V inverse = V::broadcast(1.0f / std::sqrt(sum(squares) / float(size) + eps));
  if (weight == nullptr) {
    for (int32_t i = 0; i < whole; i += kLanes) (V::load(x + i) * inverse).store(y + i);
    if (rest) (V::load_first(x + whole, rest) * inverse).store_first(y + whole, rest);
    return;
  }
  for (int32_t i = 0; i < whole; i += kLanes) {
    (V::load(x + i) * inverse * V::load(weight + i)).store(y + i);
  }
  if (rest) {
    V a = V::load_first(x + whole, rest) * inverse * V::load_first(weight + whole, rest);
    a.store_first(y + whole, rest);
  }
}

template <class V>
void rms_norm(Matrix x, const float* weight, int32_t size, bool grouped, float eps, Matrix y,
              Worker worker) {
  int32_t runs = x.cols / size;
  Share mine = share(int64_t(x.rows) * runs, 1, worker);
  for (int64_t item = mine.begin; item < mine.end; ++item) {
    int64_t row = item / runs, offset = item % runs * size;
    rms_norm_run<V>(x.row(row) + offset, grouped ? weight + offset : weight, size, eps,
                    y.row(row) + offset);
  }
}

template <class V>
void layer_norm_row(const float* x, int32_t size, const float* weight, const float* bias, float eps,
                    float* y) {
  const V zero = V::broadcast(0.0f);
  const auto first = [&](int32_t i) { return std::min(kLanes, size - i); };
  V total = zero;
  for (int32_t i = 0; i < size; i += kLanes) total = total + V::load_first(x + i, first(i));
  const V mean = V::broadcast(sum(total) / float(size));
  V squares = zero;
  for (int32_t i = 0; i < size; i += kLanes) {
    const V apart = V::load_first(x + i, first(i)) - mean;
    const V a = select(V::Mask::first(first(i)), apart, zero);
    squares = fma(a, a, squares);
  }
  const V inverse = V::broadcast(1.0f / std::sqrt(sum(squares) / float(size) + eps));
  for (int32_t i = 0; i < size; i += kLanes) {
    const V normal = (V::load_first(x + i, first(i)) - mean) * inverse;
    const V biases = bias == nullptr ? zero : V::load_first(bias + i, first(i));
    fma(normal, V::load_first(weight + i, first(i)), biases).store_first(y + i, first(i));
  }
}

template <class V>
void layer_norm(Matrix x, const float* weight, const float* bias, float eps, Matrix y,
                Worker worker) {
  const Share mine = share(x.rows, 1, worker);
  for (int64_t row = mine.begin; row < mine.end; ++row) {
    layer_norm_row<V>(x.row(row), x.cols, weight, bias, eps, y.row(row));
  }
}

}  // namespace
}  // namespace edge
