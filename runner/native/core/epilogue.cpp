#include "core/epilogue.h"

#include <algorithm>

#include "linear/packed.h"

namespace edge {

namespace {

constexpr int64_t kProductBytes = 128 << 10;  // a part of L2
constexpr int64_t kMatrices = 2;              // of a gate and of what it lets through

// Panels that are worked on together, for as many rows.
int64_t chunk_panels(int32_t rows) {
  const int64_t bytes = kMatrices * kLanes * int64_t{sizeof(float)} * rows;
  return std::max<int64_t>(kProductBytes / bytes, 1);
}

// The same, of the panels [begin, end) alone and without epilogue.
LinearArgs part_of(const LinearArgs& args, int64_t begin, int64_t end, const Matrix& y) {
  LinearArgs part = args;
  part.epilogue = Epilogue::none;
  part.weight.data = panel_data(args.weight, begin);
  part.weight.n =
      static_cast<int32_t>(std::min<int64_t>(end * kLanes, args.weight.n) - begin * kLanes);
  if (args.bias != nullptr) part.bias = args.bias + begin * kLanes;
  part.y = y;
  part.y.cols = part.weight.n;
  return part;
}

Matrix columns(const Matrix& matrix, int64_t begin, int32_t count) {
  return {matrix.data + begin, matrix.stride, matrix.rows, count};
}

}  // namespace

uint64_t epilogue_bytes(int32_t rows) {
  const int64_t row = kMatrices * kLanes * int64_t{sizeof(float)};
  return static_cast<uint64_t>(std::max(kProductBytes, row * rows));
}

void multiply_then_finish(const Kernels& kernels, const LinearArgs& args, float* products,
                          int32_t most_rows, Worker worker) {
  const ElementwiseKernels& elementwise = kernels.elementwise;
  const Worker alone;
  const Share panels = share(panel_count(args.weight), 1, worker);
  const int64_t step = chunk_panels(args.x.rows);
  const Matrix first{products, step * kLanes, args.x.rows, 0};
  const Matrix second{products + epilogue_bytes(most_rows) / kMatrices / sizeof(float),
                      first.stride, first.rows, 0};
  for (int64_t panel = panels.begin; panel < panels.end; panel += step) {
    const int64_t end = std::min(panel + step, panels.end);
    LinearArgs part = part_of(args, panel, end, first);
    kernels.linear.multiply(part, alone);
    const Matrix product = part.y, y = columns(args.y, panel * kLanes, product.cols);
    if (args.epilogue == Epilogue::add) {
      elementwise.add({columns(args.residual, panel * kLanes, product.cols), product, 0.0f, y},
                      alone);
      continue;
    }
    LinearArgs other = args;
    other.weight.data = args.up;
    other.bias = args.up_bias;
    part = part_of(other, panel, end, second);
    kernels.linear.multiply(part, alone);
    const ElementwiseKernel gated = args.epilogue == Epilogue::silu_mul   ? elementwise.silu_mul
                                    : args.epilogue == Epilogue::gelu_mul ? elementwise.gelu_mul
                                                                          : elementwise.clamped_mul;
    gated({product, part.y, args.alpha, y, args.limit}, alone);
  }
}

}  // namespace edge
