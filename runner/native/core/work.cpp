// What a worker does in a step.
#include <cstring>

#include "core/epilogue.h"
#include "core/executor.h"
#include "core/schedule.h"

namespace edge {

namespace {

// The part that lies in these rows and columns.
Matrix part_of(const Matrix& matrix, Share rows, Share columns) {
  return {matrix.row(rows.begin) + columns.begin, matrix.stride,
          static_cast<int32_t>(rows.end - rows.begin),
          static_cast<int32_t>(columns.end - columns.begin)};
}

Matrix rows_of(const Matrix& matrix, Share rows) { return part_of(matrix, rows, {0, matrix.cols}); }

// Of each of `heads` runs of columns of x, those of y from `column` on.
void copy_columns(const Matrix& x, int32_t column, int32_t heads, const Matrix& y, Worker team) {
  const Share rows = share(y.rows, 1, team);
  const int32_t run = x.cols / heads, taken = y.cols / heads;
  for (int64_t i = rows.begin; i < rows.end; ++i) {
    for (int32_t head = 0; head < heads; ++head) {
      std::memcpy(y.row(i) + head * taken, x.row(i) + head * run + column,
                  sizeof(float) * static_cast<size_t>(taken));
    }
  }
}

// The rows of the positions before, of the same sequences; zeros before position 0.
void copy_previous(const ConvArgs& args, Share rows, Share columns) {
  if (columns.begin >= columns.end) return;
  const size_t bytes = sizeof(float) * static_cast<size_t>(columns.end - columns.begin);
  for (int64_t t = rows.begin; t < rows.end; ++t) {
    float* const y = args.out.row(t) + columns.begin;
    const int32_t before = args.positions[t] - 1;
    if (before < 0) {
      std::memset(y, 0, bytes);
      continue;
    }
    const auto* block =
        reinterpret_cast<const float*>(args.part(args.sequences[t], before / kBlockTokens));
    const int64_t row = before % kBlockTokens * round_up(args.out.cols, kLanes);
    std::memcpy(y, block + row + columns.begin, bytes);
  }
}

}  // namespace

void Executor::work(Worker worker) const {
  Stamps stamps = profile_ == nullptr ? Stamps(nullptr) : profile_->worker(worker.index);
  for (const Phase& phase : phases()) {
    if (phase.barrier[static_cast<size_t>(split_)]) Pool::instance().barrier(worker.count);
    stamps.add();
    run_phase(program_.ops[static_cast<size_t>(phase.op)], phase.part, worker);
    stamps.add();
  }
  if (finishes()) {
    Pool::instance().barrier(worker.count);
    stamps.add();
    finish_rows(worker);
    stamps.add();
  }
}

// Either all rows, together with the other workers, or this worker's rows, alone.
void Executor::run_phase(const Op& op, int32_t part, Worker worker) const {
  const bool alone = is_split_by_rows(op, part, split_);
  const Share rows = alone ? share(row_count(op.rows), 1, worker) : Share{0, row_count(op.rows)};
  const Worker team = alone ? Worker{} : worker;
  const auto input = [&] { return rows_of(matrix(op.inputs[0]), rows); };
  const auto output = [&] { return rows_of(matrix(op.outputs[0]), rows); };
  switch (op.code) {
    case OpCode::embedding:
      return kernels_.linear.gather(op.weight, batch_->tokens + rows.begin, output(), team);
    case OpCode::linear:
      return run_linear(op, part, rows, worker);
    case OpCode::rms_norm:
      return kernels_.norm.rms_norm(input(), op.vectors[0], op.ints[k_rms_norm_size], false,
                                    op.floats[k_rms_norm_eps], output(), team);
    case OpCode::grouped_norm:
      return kernels_.norm.rms_norm(input(), op.vectors[0], op.ints[k_grouped_norm_size], true,
                                    op.floats[k_grouped_norm_eps], output(), team);
    case OpCode::layer_norm:
      return kernels_.norm.layer_norm(input(), op.vectors[0], op.vectors[1],
                                      op.floats[k_layer_norm_eps], output(), team);
    case OpCode::hadamard:
      return kernels_.hadamard.hadamard(input(), output(), team);
    case OpCode::rope:
      return kernels_.rope.rope(input(), positions(op.rows) + rows.begin, op.vectors[0],
                                op.vectors[1], op.table_cols, op.ints[k_rope_heads],
                                op.ints[k_rope_head_dim], output(), team);
    case OpCode::attention:
    case OpCode::attend:
      return run_attention(op, part, rows, worker);
    case OpCode::causal_conv: {
      const Share columns = share(op.outputs[0].width, kLanes, team);
      const auto run = part == kWrite ? kernels_.conv.write : kernels_.conv.convolve;
      return run(conv_args(op), rows, columns);
    }
    case OpCode::previous: {
      const Share columns = share(op.outputs[0].width, kLanes, team);
      if (part == kWrite) return kernels_.conv.write(conv_args(op), rows, columns);
      return copy_previous(conv_args(op), rows, columns);
    }
    case OpCode::concat: {
      const Matrix x = input(), y = rows_of(matrix(op.inputs[1]), rows);
      copy_columns(x, 0, 1, part_of(output(), {0, x.rows}, {0, x.cols}), team);
      return copy_columns(y, 0, 1, part_of(output(), {0, y.rows}, {x.cols, x.cols + y.cols}), team);
    }
    case OpCode::route: {
      RouteArgs args;
      args.logits = input();
      args.bias = op.vectors[0];
      args.factors = op.vectors[1];
      args.chosen = op.ints[k_route_chosen];
      args.scoring = static_cast<Scoring>(op.ints[k_route_scoring]);
      args.normalize = op.ints[k_route_normalize] != 0;
      args.eps = op.floats[k_route_eps];
      args.scale = op.floats[k_route_scale];
      args.threshold = op.floats[k_route_threshold];
      args.shares = output();
      return kernels_.route.route(args, team);
    }
    case OpCode::experts:
      return run_experts(kernels_, experts_args(op, worker), part, worker);
    case OpCode::decay:
      return kernels_.fold.decay(input(), op.vectors[0], op.vectors[1], output(), team);
    case OpCode::time_step:
      return kernels_.fold.time_step(input(), op.vectors[0], op.floats[k_time_step_low],
                                     op.floats[k_time_step_high], output(), team);
    case OpCode::gated_delta:
      return kernels_.fold.delta(fold_args(op), worker);
    case OpCode::state_space:
      return kernels_.fold.state_space(fold_args(op), worker);
    case OpCode::split:
    case OpCode::split_heads: {
      const int32_t heads = op.code == OpCode::split ? 1 : op.ints[k_split_heads_heads];
      int32_t column = 0;
      for (int32_t i = 0; i < op.output_count; ++i) {
        const Matrix y = rows_of(matrix(op.outputs[static_cast<size_t>(i)]), rows);
        copy_columns(input(), column, heads, y, team);
        column += y.cols / heads;
      }
      return;
    }
    case OpCode::adapter_gather:
    case OpCode::adapter_down:
    case OpCode::adapter_up:
      return run_adapters(op, rows, worker, team);
    case OpCode::slice:
      return copy_columns(input(), op.ints[k_slice_index] * op.ints[k_slice_size], 1, output(),
                          team);
    default:
      return run_elementwise(op, rows, share(op.outputs[0].width, kLanes, team));
  }
}

void Executor::run_linear(const Op& op, int32_t part, Share rows, Worker worker) const {
  const bool alone = is_split_by_rows(op, part, split_), one_row = split_ == Split::one_row;
  const auto index = static_cast<uint64_t>(worker.index);
  const Worker team = alone ? Worker{} : worker;
  uint8_t* const own = row_scratch_.data() + row_stride_ * index;
  LinearArgs args;
  args.weight = op.weight;
  args.bias = op.vectors[0];
  args.x = rows_of(matrix(op.inputs[0]), rows);
  args.y = rows_of(matrix(op.outputs[0]), rows);
  args.scratch =
      one_row ? own + row_bytes_ : linear_scratch_.data() + (alone ? index * linear_stride_ : 0);
  args.epilogue = op.epilogue;
  args.up = op.up;
  args.up_bias = op.up_bias;
  if (op.epilogue == Epilogue::add) args.residual = rows_of(matrix(op.inputs[1]), rows);
  if (part == kPrepare) {
    return prepare_rows(op, args, share(args.x.rows, 1, one_row ? Worker{} : team),
                        reinterpret_cast<float*>(own));
  }
  if (kernels_.linear.finishes(args)) return kernels_.linear.multiply(args, team);
  const uint64_t tile = epilogue_bytes(most_rows());
  multiply_then_finish(kernels_, args,
                       reinterpret_cast<float*>(epilogue_scratch_.data() + tile * index),
                       most_rows(), team);
}

// `normal`: room for a row.
void Executor::prepare_rows(const Op& op, LinearArgs args, Share rows, float* normal) const {
  if (op.norm == nullptr) return kernels_.linear.prepare(args, rows);
  const Matrix x = args.x, y{normal, 0, 1, x.cols};
  args.x.data = normal;  // every row of x lies there when it is prepared
  args.x.stride = 0;
  for (int64_t i = rows.begin; i < rows.end; ++i) {
    kernels_.norm.rms_norm(rows_of(x, {i, i + 1}), op.norm, x.cols, false, op.eps, y, Worker{});
    kernels_.linear.prepare(args, {i, i + 1});
  }
}

void Executor::run_attention(const Op& op, int32_t part, Share rows, Worker worker) const {
  AttentionArgs args = attention_args(op);
  if (part == kRead) return kernels_.attention.attend(args, worker);
  if (!is_split_by_rows(op, part, split_)) return kernels_.attention.write(args, worker);
  args.scratch += kernels_.attention.scratch_bytes(args) * static_cast<uint64_t>(worker.index);
  args.k = rows_of(args.k, rows);
  args.v = rows_of(args.v, rows);
  args.positions += rows.begin;
  args.sequences += rows.begin;
  kernels_.attention.write(args, Worker{});
}

// Operators of which each worker takes some rows, or some columns, as the linears do whose results
// they go on with.
void Executor::run_elementwise(const Op& op, Share rows, Share columns) const {
  if (columns.begin >= columns.end) return;
  const ElementwiseKernels& elementwise = kernels_.elementwise;
  const auto operand = [&](const Place& place) { return part_of(matrix(place), rows, columns); };
  const Matrix y = operand(op.outputs[0]);
  const Worker alone;
  if (op.code == OpCode::select_rows) {
    const Matrix x = matrix(op.inputs[0]);
    return elementwise.select_rows(part_of(x, {0, x.rows}, columns), batch_->rows, y, alone);
  }
  ElementwiseArgs args;
  args.x = operand(op.inputs[0]);
  if (op.code == OpCode::scale_rows) {
    args.y = rows_of(matrix(op.inputs[1]), rows);
  } else if (op.input_count > 1) {
    args.y = operand(op.inputs[1]);
  }
  args.number = op.code == OpCode::rescale ? op.vectors[0][0] : op.floats[0];
  args.out = y;
  switch (op.code) {
#define EDGE_CASE(name) \
  case OpCode::name:    \
    return elementwise.name(args, alone);
    EDGE_ELEMENTWISE(EDGE_CASE)
    EDGE_CASE(scale_rows)
    EDGE_CASE(silu_mul)
    EDGE_CASE(gelu_mul)
    case OpCode::rescale:
      return elementwise.scale(args, alone);
#undef EDGE_CASE
    default:
      return;
  }
}

void Executor::finish_rows(Worker worker) const {
  if (batch_->hidden_count > 0) copy_hidden(worker);
  if (batch_->rows_count == 0) return;
  if (batch_->logits != nullptr) {
    const Matrix logits = step_logits();
    const Share columns = share(logits.cols, kLanes, worker);
    for (int64_t r = 0; r < logits.rows; ++r) {
      std::memcpy(batch_->logits + r * logits.cols + columns.begin, logits.row(r) + columns.begin,
                  sizeof(float) * static_cast<size_t>(columns.end - columns.begin));
    }
  }
  if (batch_->samplers != nullptr) sample_rows(worker);
}

void Executor::copy_hidden(Worker worker) const {
  const Matrix hidden = matrix(program_.hidden);
  const Share rows = share(batch_->hidden_count, 1, worker);
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    std::memcpy(batch_->hidden + r * hidden.cols, hidden.row(batch_->hidden_rows[r]),
                sizeof(float) * static_cast<size_t>(hidden.cols));
  }
}

void Executor::sample_rows(Worker worker) const {
  const Matrix logits = step_logits();
  uint8_t* scratch =
      sampler_scratch_.data() + sampler_stride_ * static_cast<uint64_t>(worker.index);
  for (int32_t r = worker.index; r < logits.rows; r += worker.count) {
    edge_sample& sample = batch_->samples[r];
    if (batch_->samplers[r].sample == 0) {
      sample.id = -1;
      sample.status = 0;
      sample.top_count = 0;
    } else {
      kernels_.sampler.sample(logits.row(r), program_.vocab, program_.sampleable,
                              batch_->samplers[r], scratch, &sample);
    }
  }
}

}  // namespace edge
