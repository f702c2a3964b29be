// RMS norm over virtual lanes; norm.h has the contract. Included once per instruction set.
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
void rms_norm(Matrix x, const float* weight, int32_t size, float eps, Matrix y, Worker worker) {
  int32_t runs = x.cols / size;
  Share mine = share(int64_t(x.rows) * runs, 1, worker);
  for (int64_t item = mine.begin; item < mine.end; ++item) {
    int64_t row = item / runs, offset = item % runs * size;
    rms_norm_run<V>(x.row(row) + offset, weight, size, eps, y.row(row) + offset);
  }
}

}  // namespace
}  // namespace edge
