#include "core/executor.h"

#include <algorithm>
#include <cstring>

#include "core/epilogue.h"
#include "core/error.h"

namespace edge {

namespace {

constexpr int64_t kApart = 128;  // workers write no neighbouring cache lines

// Rows that make reading all weights worth a worker's while.
constexpr int32_t kRowsEach = 96;

const edge_limits& checked(const edge_limits& limits) {
  constexpr int32_t kMost = 1 << 20;
  const auto require = [](int32_t value, int32_t low, int32_t high, const char* name) {
    if (value < low || value > high) {
      fail(EDGE_INVALID, "limits: %s is %d, expected %d to %d", name, value, low, high);
    }
  };
  require(limits.max_tokens, 1, kMost, "max_tokens");
  require(limits.max_rows, 0, kMost, "max_rows");
  require(limits.max_sequences, 1, kMost, "max_sequences");
  require(limits.context, 1, kMaxContext, "context");
  require(limits.kv_dtype, 0, static_cast<int32_t>(KvType::i8), "kv_dtype");
  require(limits.group_count, 0, kMost, "group_count");
  if (limits.group_count > 0 && limits.blocks == nullptr) {
    fail(EDGE_INVALID, "limits: blocks is null");
  }
  for (int32_t g = 0; g < limits.group_count; ++g) {
    require(limits.blocks[g], 0, INT32_MAX, "blocks");
  }
  require(limits.threads, 1, 1024, "threads");
  return limits;
}

}  // namespace

Executor::Executor(const edge_program& program, const edge_limits& limits)
    : kernels_(select_kernels()),
      program_(translate(program, kernels_, static_cast<KvType>(checked(limits).kv_dtype),
                         limits.trace != 0)),
      limits_(limits),
      block_counts_(limits.blocks, limits.blocks + limits.group_count),
      seen_(static_cast<size_t>(limits.max_sequences), 0),
      wanted_positions_(static_cast<size_t>(std::max(limits.max_rows, 0))),
      wanted_sequences_(wanted_positions_.size()) {
  limits_.blocks = nullptr;  // borrowed
  if (limits.context > program_.context) {
    fail(EDGE_INVALID, "limits: context is %d, the program has %d", limits.context,
         program_.context);
  }
  if (program_.groups.size() != block_counts_.size()) {
    fail(EDGE_INVALID, "limits: group_count is %d, the program has %d", limits.group_count,
         static_cast<int32_t>(program_.groups.size()));
  }
  const auto threads = static_cast<uint64_t>(limits.threads);
  row_counts_[0] = limits.max_tokens;
  row_counts_[1] = limits.max_rows;
  for (int32_t i = 0; i < 2; ++i) {
    const auto width = static_cast<uint64_t>(program_.arena_widths[static_cast<size_t>(i)]);
    arenas_[i] = Reservation(sizeof(float) * width * static_cast<uint64_t>(row_counts_[i]),
                             "the activations of a step");
  }
  uint64_t linear = 0, row = 0, attention = 0, experts = 0, fold = 0;
  bool epilogues = false;
  for (const Op& op : program_.ops) {
    if (op.code == OpCode::linear) {
      linear =
          std::max<uint64_t>(linear, kernels_.linear.scratch_bytes(op.weight, row_count(op.rows)));
      row = std::max<uint64_t>(row, kernels_.linear.scratch_bytes(op.weight, 1));
      epilogues |= op.epilogue != Epilogue::none;
      if (op.norm != nullptr) {
        const int64_t bytes = round_up(op.weight.k * int64_t{sizeof(float)}, kApart);
        row_bytes_ = std::max(row_bytes_, static_cast<uint64_t>(bytes));
      }
    } else if (op.code == OpCode::experts) {
      const ExpertsArgs args = experts_args(op, {});
      experts = std::max(experts, experts_bytes(kernels_.linear, args));
      experts_stride_ = std::max(experts_stride_, experts_own_bytes(args));
      epilogues = true;
    } else if (op.code == OpCode::attention || op.code == OpCode::attend) {
      attention =
          std::max<uint64_t>(attention, kernels_.attention.scratch_bytes(attention_args(op)));
    } else if (op.code == OpCode::adapter_up) {
      epilogues = true;
    } else if (folds(op)) {
      fold = std::max<uint64_t>(fold, kernels_.fold.scratch_bytes(op.fold));
    }
  }
  const int32_t each = (limits.max_tokens + limits.threads - 1) / limits.threads;
  for (const Op& op : program_.ops) {
    if (op.code != OpCode::linear) continue;
    const auto bytes = static_cast<int64_t>(kernels_.linear.scratch_bytes(op.weight, each));
    linear_stride_ = std::max(linear_stride_, static_cast<uint64_t>(round_up(bytes, kApart)));
  }
  linear_scratch_ =
      Reservation(std::max(linear, threads * linear_stride_), "quantized activations");
  row_stride_ = row_bytes_ + static_cast<uint64_t>(round_up(static_cast<int64_t>(row), kApart));
  row_scratch_ = Reservation(threads * row_stride_, "quantized activations");
  const uint64_t tile = epilogues ? epilogue_bytes(most_rows()) : 0;
  epilogue_scratch_ = Reservation(threads * tile, "products");
  attention_scratch_ = Reservation(threads * attention, "attention");
  experts_scratch_ = Reservation(experts, "the experts");
  experts_own_scratch_ = Reservation(threads * experts_stride_, "the experts");
  fold_scratch_ = Reservation(threads * fold, "folds");
  sampler_stride_ = static_cast<uint64_t>(round_up(
      static_cast<int64_t>(kernels_.sampler.scratch_bytes(program_.vocab, limits_.context)), 64));
  sampler_scratch_ = Reservation(threads * sampler_stride_, "the sampler");
  for (size_t g = 0; g < block_counts_.size(); ++g) {
    const auto count = static_cast<uint64_t>(block_counts_[g]);
    const uint64_t bytes = program_.groups[g].block_bytes;
    if (count > 0 && bytes > UINT64_MAX / count) {
      fail(EDGE_OUT_OF_MEMORY, "%d KV blocks exceed the address space", block_counts_[g]);
    }
    blocks_.emplace_back(bytes * count, "the KV blocks", PageSize::huge);
    written_.emplace_back(sizeof(uint64_t) * count, "the KV blocks");
  }
  row_counts_[0] = row_counts_[1] = 0;
  Pool::instance().claim(limits.threads);
}

Executor::~Executor() { Pool::instance().release(); }

void Executor::step(const edge_batch& batch) {
  check_batch(batch);
  batch_ = &batch;
  row_counts_[0] = batch.tokens_count;
  row_counts_[1] = batch.rows_count;
  for (int32_t r = 0; r < batch.rows_count; ++r) {
    wanted_positions_[static_cast<size_t>(r)] = batch.positions[batch.rows[r]];
    wanted_sequences_[static_cast<size_t>(r)] = batch.sequences[batch.rows[r]];
  }
  const int32_t workers =
      batch.workers == 0 || profile_ != nullptr ? limits_.threads : batch.workers;
  // Each worker's part of the scratch memory is as large as its share of all threads: where they
  // take rows, all of them have to be there.
  split_ = batch.tokens_count == 1 && batch.rows_count <= 1 ? Split::one_row
           : workers > 1 && workers == limits_.threads && batch.tokens_count / workers >= kRowsEach
               ? Split::rows
               : Split::columns;
  adapted_ = batch.adapters != nullptr &&
             std::any_of(batch.adapters, batch.adapters + batch.sequence_count,
                         [](int32_t adapter) { return adapter >= 0; });
  FloatEnvironment environment;
  if (profile_ != nullptr) profile_->begin(batch, phases().size() + finishes());
  Pool::instance().run(
      workers, [](void* self, Worker worker) { static_cast<const Executor*>(self)->work(worker); },
      this, batch.patient != 0);
  if (profile_ != nullptr) profile_->end();
  batch_ = nullptr;
}

const std::vector<Phase>& Executor::phases() const {
  if (batch_->draft != 0) return program_.draft_phases;
  const bool hidden = batch_->hidden_count > 0;
  return (batch_->rows_count > 0 ? program_.phases : program_.bare_phases)[adapted_][hidden];
}

Matrix Executor::step_logits() const {
  return matrix(batch_->draft != 0 ? program_.draft_logits : program_.logits);
}

bool Executor::finishes() const {
  return batch_->hidden_count > 0 ||
         (batch_->rows_count > 0 && (batch_->logits != nullptr || batch_->samplers != nullptr));
}

Matrix Executor::matrix(const Place& place) const {
  const int32_t rows = row_count(place.rows);
  float* arena = reinterpret_cast<float*>(arenas_[static_cast<int32_t>(place.rows)].data());
  return {arena + place.offset * rows + place.column, place.stride, rows, place.width};
}

Pages Executor::pages(const Op& op) const {
  Pages pages;
  const auto group = static_cast<size_t>(op.group);
  pages.blocks = blocks_.empty() ? nullptr : blocks_[group].data();  // empty at load
  pages.block_bytes = program_.groups[group].block_bytes;
  pages.offset = op.state_offset;
  if (batch_ != nullptr) {  // null at load, where only sizes are asked
    pages.positions = positions(op.rows);
    pages.sequences = sequences(op.rows);
    const int64_t table = int64_t{batch_->sequence_count} * batch_->block_stride;
    pages.block_table = batch_->block_tables + table * op.group;
    pages.block_stride = batch_->block_stride;
  }
  return pages;
}

AttentionArgs Executor::attention_args(const Op& op) const {
  AttentionArgs args;
  static_assert(k_attend_heads == k_attention_heads && k_attend_scale == k_attention_scale &&
                k_attend_softcap == k_attention_softcap);
  static_cast<Pages&>(args) = pages(op);
  args.state = op.kv;
  args.heads = op.ints[k_attention_heads];
  args.window = op.window;
  args.scale = op.floats[k_attention_scale];
  args.softcap = op.floats[k_attention_softcap];
  args.q = matrix(op.inputs[0]);
  if (op.code == OpCode::attention) {
    args.k = matrix(op.inputs[1]);
    args.v = matrix(op.inputs[2]);
    args.bidirectional = op.ints[k_attention_bidirectional] != 0;
  }
  args.rotate_q = op.rotate_q;
  args.rotate_k = op.rotate_k;
  args.sinks = op.vectors[0];
  args.out = matrix(op.outputs[0]);
  args.scratch = attention_scratch_.data();
  return args;
}

FoldArgs Executor::fold_args(const Op& op) const {
  FoldArgs args;
  static_cast<Pages&>(args) = pages(op);
  args.state = op.fold;
  args.q = matrix(op.inputs[0]);
  args.k = matrix(op.inputs[1]);
  args.v = matrix(op.inputs[2]);
  if (op.code == OpCode::gated_delta) {
    args.decay = matrix(op.inputs[3]);
    args.strength = matrix(op.inputs[4]);
    args.eps = op.floats[k_gated_delta_eps];
    args.scale = op.floats[k_gated_delta_scale];
  } else {
    args.strength = matrix(op.inputs[3]);
    args.rate = op.vectors[0];
    args.skip = op.vectors[1];
  }
  args.out = matrix(op.outputs[0]);
  args.scratch = fold_scratch_.data();
  return args;
}

ConvArgs Executor::conv_args(const Op& op) const {
  ConvArgs args;
  static_cast<Pages&>(args) = pages(op);
  args.taps = op.ints[k_causal_conv_taps];
  args.x = matrix(op.inputs[0]);
  args.out = matrix(op.outputs[0]);
  args.weights = op.taps;
  return args;
}

ExpertsArgs Executor::experts_args(const Op& op, Worker worker) const {
  ExpertsArgs args;
  args.stacks = op.experts;
  args.experts = op.ints[k_experts_experts];
  args.inner = op.ints[k_experts_inner];
  args.chosen = op.ints[k_experts_chosen];
  args.activation = op.epilogue;
  args.alpha = op.floats[k_experts_alpha];
  args.limit = op.floats[k_experts_limit];
  args.x = matrix(op.inputs[0]);
  args.shares = matrix(op.inputs[1]);
  args.y = matrix(op.outputs[0]);
  args.most_rows = most_rows();
  args.read_ahead = limits_.read_ahead != 0;
  const auto index = static_cast<uint64_t>(worker.index);
  args.shared = experts_scratch_.data();
  args.own = experts_own_scratch_.data() + experts_stride_ * index;
  args.products =
      reinterpret_cast<float*>(epilogue_scratch_.data() + epilogue_bytes(most_rows()) * index);
  return args;
}

void Executor::copy_block(int32_t group, int32_t source, int32_t target) {
  const uint64_t bytes = block_bytes(group);
  uint8_t* from = block(group, source, bytes);
  uint8_t* to = block(group, target, bytes);
  if (source != target) std::memcpy(to, from, bytes);
}

uint64_t Executor::block_bytes(int32_t group) const {
  if (group < 0 || group >= static_cast<int32_t>(blocks_.size())) {
    fail(EDGE_INVALID, "group %d does not exist, there are %d", group,
         static_cast<int32_t>(blocks_.size()));
  }
  return program_.groups[static_cast<size_t>(group)].block_bytes;
}

uint8_t* Executor::block(int32_t group, int32_t number, uint64_t count) {
  const uint64_t bytes = block_bytes(group);
  if (number < 0 || number >= block_counts_[static_cast<size_t>(group)]) {
    fail(EDGE_INVALID, "block %d does not exist, there are %d", number,
         block_counts_[static_cast<size_t>(group)]);
  }
  if (count != bytes) {
    fail(EDGE_INVALID, "a block of group %d has %llu bytes, not %llu", group,
         static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(count));
  }
  return blocks_[static_cast<size_t>(group)].data() + bytes * static_cast<uint64_t>(number);
}

void Executor::read_value(int32_t value, float* out, uint64_t count) const {
  if (limits_.trace == 0) fail(EDGE_INVALID, "the model was loaded without trace");
  if (value < kInputCount || value >= static_cast<int32_t>(program_.values.size()) ||
      program_.values[static_cast<size_t>(value)].stride == 0) {
    fail(EDGE_INVALID, "value %d is not computed by the program", value);
  }
  const Matrix matrix = this->matrix(program_.values[static_cast<size_t>(value)]);
  const uint64_t expected = static_cast<uint64_t>(matrix.rows) * static_cast<uint64_t>(matrix.cols);
  if (count != expected) {
    fail(EDGE_INVALID, "value %d has %llu numbers, not %llu", value,
         static_cast<unsigned long long>(expected), static_cast<unsigned long long>(count));
  }
  for (int64_t i = 0; i < matrix.rows; ++i) {
    std::memcpy(out + i * matrix.cols, matrix.row(i),
                sizeof(float) * static_cast<size_t>(matrix.cols));
  }
}

void Executor::profile(int32_t steps) {
  profile_ = nullptr;
  if (steps == 0) return;
  const size_t most = std::max(program_.phases[true][true].size(), program_.draft_phases.size());
  const auto phases = static_cast<int32_t>(most) + 1;
  profile_ = std::make_unique<Profile>(steps, phases, limits_.threads);
}

int32_t Executor::describe_phases(bool wanted, edge_phase* phases, int32_t capacity) const {
  int32_t count = 0;
  const auto add = [&](const char* work, const std::vector<int32_t>& instructions, bool barrier) {
    if (count < capacity) {
      edge_phase& phase = phases[count];
      phase = {};
      phase.work = work;
      phase.barrier = barrier;
      for (int32_t instruction : instructions) {
        if (phase.instruction_count == EDGE_MAX_PHASE_INSTRUCTIONS) break;
        phase.instructions[phase.instruction_count++] = instruction;
      }
    }
    ++count;
  };
  for (const Phase& phase : (wanted ? program_.phases : program_.bare_phases)[false][false]) {
    const Op& op = program_.ops[static_cast<size_t>(phase.op)];
    add(phase.work, op.instructions[static_cast<size_t>(phase.part)], phase.barrier[0]);
  }
  if (wanted) add("sample", {}, true);
  return count;
}

void Executor::read_profile(int32_t step, edge_profile_step* summary, int64_t* stamps,
                            uint64_t count) const {
  if (profile_ == nullptr) fail(EDGE_INVALID, "no profile was started");
  profile_->read(step, summary, stamps, count);
}

}  // namespace edge
