// Causal convolution over virtual lanes (contract: conv.h). Included once per instruction set.
//
// Lanes are columns, which begin on a multiple of 16: what a last vector computes beyond the width
// stays in the padding.
#include "conv/conv.h"

namespace edge {
namespace {

inline int64_t padded_width(const ConvArgs& args) { return round_up(args.x.cols, kLanes); }

// The row of a position that a token sees.
inline float* stored_row(const ConvArgs& args, int32_t sequence, int32_t position) {
  float* part = reinterpret_cast<float*>(args.part(sequence, position / kBlockTokens));
  return part + position % kBlockTokens * padded_width(args);
}

template <class V>
void write(const ConvArgs& args, Share rows, Share columns) {
  for (int64_t t = rows.begin; t < rows.end; ++t) {
    const float* x = args.x.row(t);
    float* row = stored_row(args, args.sequences[t], args.positions[t]);
    for (int64_t c = columns.begin; c < columns.end; c += kLanes) V::load(x + c).store(row + c);
  }
}

template <class V>
void convolve(const ConvArgs& args, Share rows, Share columns) {
  const int64_t stride = padded_width(args);
  const float* bias = args.weights + args.taps * stride;
  for (int64_t t = rows.begin; t < rows.end; ++t) {
    const int32_t first = args.positions[t] - args.taps + 1;
    const int32_t skipped = first < 0 ? -first : 0;
    const float* seen[EDGE_MAX_TAPS];
    for (int32_t i = skipped; i < args.taps; ++i) {
      seen[i] = stored_row(args, args.sequences[t], first + i);
    }
    float* y = args.out.row(t);
    for (int64_t c = columns.begin; c < columns.end; c += kLanes) {
      V total = V::load(bias + c);
      for (int32_t i = skipped; i < args.taps; ++i) {
        total = fma(V::load(args.weights + i * stride + c), V::load(seen[i] + c), total);
      }
      total.store(y + c);
    }
  }
}

template <class V>
constexpr ConvKernels conv_kernels() {
  return {write<V>, convolve<V>};
}

}  // namespace
}  // namespace edge
