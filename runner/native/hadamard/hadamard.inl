// The Hadamard transform over virtual lanes; hadamard.h has the contract. Included once per
// instruction set.
#include <cmath>

#include "hadamard/hadamard.h"

namespace edge {
namespace {

constexpr int32_t kOrder = 28;  // of the matrix that is not Sylvester's

struct Signs {
  float sylvester[kLanes][kLanes];
  float paley[kOrder][kOrder];
};

// Paley's second construction: with Q[i][j] = 1 where j - i is a square modulo 13, else -1 (0 on
// the diagonal), and C = [0 1; 1 Q], the matrix is [C + I, C - I; C - I, -C - I].
constexpr Signs make_signs() {
  Signs signs{};
  for (int32_t i = 0; i < kLanes; ++i) {
    for (int32_t j = 0; j < kLanes; ++j) {
      int32_t odd = 0;
      for (int32_t common = i & j; common; common >>= 1) odd ^= common & 1;
      signs.sylvester[i][j] = odd ? -1.0f : 1.0f;
    }
  }
  constexpr int32_t kHalf = kOrder / 2, kPrime = kHalf - 1;
  for (int32_t i = 0; i < kHalf; ++i) {
    for (int32_t j = 0; j < kHalf; ++j) {
      bool square = i == 0 || j == 0;
      for (int32_t root = 1; root < kPrime; ++root) {
        square = square || (root * root - j + i) % kPrime == 0;
      }
      const float c = square ? 1.0f : -1.0f;
      const bool diagonal = i == j;
      signs.paley[i][j] = diagonal ? 1.0f : c;
      signs.paley[i][j + kHalf] = diagonal ? -1.0f : c;
      signs.paley[i + kHalf][j] = diagonal ? -1.0f : c;
      signs.paley[i + kHalf][j + kHalf] = diagonal ? -1.0f : -c;
    }
  }
  return signs;
}

alignas(64) constexpr Signs kSigns = make_signs();

template <class V>
void hadamard_row(const float* x, int32_t size, float* y) {
  const int32_t order = size & (size - 1) ? kOrder : 1, run = size / order;
  for (int32_t i = 0; i < size; i += kLanes) {
    V total = V::broadcast(x[i]);
    for (int32_t j = 1; j < kLanes; ++j) {
      total = fma(V::broadcast(x[i + j]), V::load(kSigns.sylvester[j]), total);
    }
    total.store(y + i);
  }
  for (int32_t apart = kLanes; apart < run; apart *= 2) {
    for (int32_t begin = 0; begin < size; begin += 2 * apart) {
      for (int32_t i = begin; i < begin + apart; i += kLanes) {
        const V a = V::load(y + i), b = V::load(y + i + apart);
        (a + b).store(y + i);
        (a - b).store(y + i + apart);
      }
    }
  }
  if (order > 1) {
    float kept[kOrder * kLanes];
    for (int32_t i = 0; i < run; i += kLanes) {
      for (int32_t j = 0; j < kOrder; ++j) V::load(y + j * run + i).store(kept + j * kLanes);
      for (int32_t row = 0; row < kOrder; ++row) {
        const float* signs = kSigns.paley[row];
        V total = V::load(kept) * V::broadcast(signs[0]);
        for (int32_t j = 1; j < kOrder; ++j) {
          total = fma(V::load(kept + j * kLanes), V::broadcast(signs[j]), total);
        }
        total.store(y + row * run + i);
      }
    }
  }
  const V scale = V::broadcast(float(1.0 / std::sqrt(double(size))));
  for (int32_t i = 0; i < size; i += kLanes) (V::load(y + i) * scale).store(y + i);
}

template <class V>
void hadamard(Matrix x, Matrix y, Worker worker) {
  const Share mine = share(x.rows, 1, worker);
  for (int64_t row = mine.begin; row < mine.end; ++row) {
    hadamard_row<V>(x.row(row), x.cols, y.row(row));
  }
}

}  // namespace
}  // namespace edge
