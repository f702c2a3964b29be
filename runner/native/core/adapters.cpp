// The operators of low-rank adapters, made of linear kernels.
//
// A step's rows are cut into runs of one adapter; tokens of a sequence are one run, or part of one.
// A product with a row is that of a linear of its own, to the bit, and rows without an adapter are
// left as they are.
#include <algorithm>
#include <cstring>

#include "core/epilogue.h"
#include "core/executor.h"
#include "linear/packed.h"

namespace edge {

namespace {

Matrix rows_of(const Matrix& matrix, Share rows) {
  return {matrix.row(rows.begin), matrix.stride, static_cast<int32_t>(rows.end - rows.begin),
          matrix.cols};
}

// The matrix of one adapter, of `height` rows, of which the first `n` count.
PackedWeight matrix_of(const PackedWeight& stack, int32_t adapter, int32_t height, int32_t n) {
  PackedWeight weight = stack;
  weight.n = n;
  weight.data = panel_data(stack, int64_t{adapter} * (height / kLanes));
  return weight;
}

// What rows without an adapter get: those of `x`, or zeros where it is null.
void fill(const Matrix* x, const Matrix& y, Worker team) {
  const Share columns = share(y.cols, kLanes, team);
  if (columns.begin >= columns.end) return;
  const size_t bytes = sizeof(float) * static_cast<size_t>(columns.end - columns.begin);
  for (int64_t i = 0; i < y.rows; ++i) {
    float* const to = y.row(i) + columns.begin;
    if (x == nullptr) {
      std::memset(to, 0, bytes);
    } else if (const float* const from = x->row(i) + columns.begin; from != to) {
      std::memcpy(to, from, bytes);
    }
  }
}

}  // namespace

void Executor::run_adapters(const Op& op, Share rows, Worker worker, Worker team) const {
  const int32_t* const sequences = this->sequences(op.rows);
  for (int64_t begin = rows.begin, end; begin < rows.end; begin = end) {
    const int32_t adapter = adapter_of(sequences[begin]);
    end = begin + 1;
    while (end < rows.end && adapter_of(sequences[end]) == adapter) ++end;
    run_adapter(op, adapter, {begin, end}, worker, team);
  }
}

void Executor::run_adapter(const Op& op, int32_t adapter, Share rows, Worker worker,
                           Worker team) const {
  const Matrix y = rows_of(matrix(op.outputs[0]), rows);
  if (op.code == OpCode::adapter_gather) {
    if (adapter < 0) {
      const Share mine = share(y.rows, 1, team);
      return fill(nullptr, rows_of(y, mine), Worker{});
    }
    const int32_t height = op.ints[k_adapter_gather_height];
    return kernels_.linear.gather(matrix_of(op.weight, adapter, height, height),
                                  batch_->tokens + rows.begin, y, team);
  }
  const Matrix x = rows_of(matrix(op.inputs[0]), rows);
  const bool up = op.code == OpCode::adapter_up;
  if (adapter < 0) return fill(up ? &x : nullptr, y, team);
  LinearArgs args;
  args.y = y;
  if (!up) {
    args.x = x;
    args.weight = matrix_of(op.weight, adapter, op.ints[k_adapter_down_rank], y.cols);
    return kernels_.linear.multiply(args, team);
  }
  args.x = rows_of(matrix(op.inputs[1]), rows);
  args.weight = matrix_of(op.weight, adapter, op.ints[k_adapter_up_height], y.cols);
  args.epilogue = Epilogue::add;
  args.residual = x;
  if (kernels_.linear.finishes(args)) return kernels_.linear.multiply(args, team);
  const uint64_t tile = epilogue_bytes(most_rows()) * static_cast<uint64_t>(worker.index);
  multiply_then_finish(kernels_, args, reinterpret_cast<float*>(epilogue_scratch_.data() + tile),
                       most_rows(), team);
}

}  // namespace edge
