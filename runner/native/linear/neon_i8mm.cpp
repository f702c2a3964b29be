// Sums by smmla: two rows of a panel and two rows of x, eight k each, make a 2 x 2 block of sums.
// Zipping the two vectors of a panel that hold the first and the next four k puts eight k of two
// rows side by side, and words of x alike, so weights need no layout of their own.
// clang-format off: each part uses those before it
#include "linear/neon_integer.inl"
#include "linear/neon_dotprod.inl"
// clang-format on

namespace edge {
namespace {

inline int8x16_t zip_low(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s32(vzip1q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}

inline int8x16_t zip_high(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s32(vzip2q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}

template <int M>
struct PairSums {
  static constexpr int kPairs = M / 2;
  int32x4_t sums[kPairs][8];  // [pair of rows of x][pair of panel rows]: (w0 x0, w0 x1, w1 x0, ..)

  PairSums() {
#pragma GCC unroll 2
    for (int p = 0; p < kPairs; ++p) {
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) sums[p][j] = vdupq_n_s32(0);
    }
  }

  void add(const int8x16_t (&low)[4], const int8x16_t (&high)[4], const int8_t* x) {
    const int8x16_t first = load_words<M>(x), next = load_words<M>(x + 4 * M);
    int8x16_t rows[2] = {zip_low(first, next), zip_high(first, next)};
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const int8x16_t upper = zip_low(low[j], high[j]), lower = zip_high(low[j], high[j]);
#pragma GCC unroll 2
      for (int p = 0; p < kPairs; ++p) {
        sums[p][2 * j] = vmmlaq_s32(sums[p][2 * j], upper, rows[p]);
        sums[p][2 * j + 1] = vmmlaq_s32(sums[p][2 * j + 1], lower, rows[p]);
      }
    }
  }

  int32x4_t of(int m, int j) const {
    const int32x4_t upper = sums[m / 2][2 * j], lower = sums[m / 2][2 * j + 1];
    return m % 2 ? vuzp2q_s32(upper, lower) : vuzp1q_s32(upper, lower);
  }
};

template <int M>
struct MatrixSums : std::conditional_t<M % 2 == 0, PairSums<M>, DotSums<M>> {};

}  // namespace

const LinearKernels linear_neon_i8mm = linear_kernels<MatrixSums>();

}  // namespace edge
