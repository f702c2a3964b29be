// Sums by sdot: four products of a panel row and a row of x go into one int32 lane. Included after
// neon_integer.inl, by files built for the dot product extension.

namespace edge {
namespace {

template <int M>
struct DotSums {
  int32x4_t sums[M][4];

  DotSums() {
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) sums[m][j] = vdupq_n_s32(0);
    }
  }

  template <int m>
  void add_row(const int8x16_t (&w)[4], int8x16_t words) {
    if constexpr (m < M) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) sums[m][j] = vdotq_laneq_s32(sums[m][j], w[j], words, m);
    }
  }

  void add_four(const int8x16_t (&w)[4], const int8_t* x) {
    const int8x16_t words = load_words<M>(x);
    add_row<0>(w, words);
    add_row<1>(w, words);
    add_row<2>(w, words);
    add_row<3>(w, words);
  }

  void add(const int8x16_t (&low)[4], const int8x16_t (&high)[4], const int8_t* x) {
    add_four(low, x);
    add_four(high, x + 4 * M);
  }

  int32x4_t of(int m, int j) const { return sums[m][j]; }
};

}  // namespace
}  // namespace edge
