// Rotary embedding over virtual lanes; rope.h has the contract. Included once per instruction set.
#include "rope/rope.h"

namespace edge {
namespace {

template <class V>
inline void rotate(V a, V b, V cos, V sin, V* first, V* second) {
  *first = fma(a, cos, -(b * sin));
  *second = fma(b, cos, a * sin);
}

template <class V>
void rope_head(const float* x, const float* cos, const float* sin, int32_t d, int32_t head_dim,
               float* y) {
  int32_t i = 0;
  V first, second;
  for (; i + kLanes <= d; i += kLanes) {
    rotate(V::load(x + i), V::load(x + d + i), V::load(cos + i), V::load(sin + i), &first, &second);
    first.store(y + i);
    second.store(y + d + i);
  }
  if (int32_t rest = d - i) {
    rotate(V::load_first(x + i, rest), V::load_first(x + d + i, rest), V::load_first(cos + i, rest),
           V::load_first(sin + i, rest), &first, &second);
    first.store_first(y + i, rest);
    second.store_first(y + d + i, rest);
  }
  for (i = 2 * d; i < head_dim; ++i) y[i] = x[i];
}

template <class V>
void rope(Matrix x, const int32_t* positions, const float* cos, const float* sin,
          int32_t table_cols, int32_t heads, int32_t head_dim, Matrix y, Worker worker) {
  Share mine = share(int64_t(x.rows) * heads, 1, worker);
  for (int64_t item = mine.begin; item < mine.end; ++item) {
    int64_t row = item / heads, offset = item % heads * head_dim;
    int64_t angles = int64_t(positions[row]) * table_cols;
    rope_head<V>(x.row(row) + offset, cos + angles, sin + angles, table_cols, head_dim,
                 y.row(row) + offset);
  }
}

}  // namespace
}  // namespace edge
