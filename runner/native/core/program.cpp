#include "core/program.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/error.h"
#include "core/fuse.h"
#include "core/place.h"
#include "core/schedule.h"
#include "linear/packed.h"

namespace edge {

namespace {

// The instructions that lead to `value` (-1: none) or, with `attention`, to what attention writes.
std::vector<bool> leading_to(const edge_program& source, const std::vector<Instruction>& list,
                             int32_t value, bool attention) {
  std::vector<bool> wanted(static_cast<size_t>(source.value_count), false);
  std::vector<bool> leading(list.size(), false);
  if (value >= 0) wanted[static_cast<size_t>(value)] = true;
  for (size_t i = list.size(); i-- > 0;) {
    const edge_instruction& in = list[i].plain;
    bool leads = attention && static_cast<OpCode>(in.op) == OpCode::attention;
    for (int32_t o = 0; o < in.output_count; ++o) {
      leads = leads || wanted[static_cast<size_t>(in.outputs[o])];
    }
    if (!leads) continue;
    leading[i] = true;
    for (int32_t n = 0; n < in.input_count; ++n) wanted[static_cast<size_t>(in.inputs[n])] = true;
  }
  return leading;
}

std::vector<bool> only_for_hidden(const edge_program& source,
                                  const std::vector<Instruction>& list) {
  std::vector<bool> only = leading_to(source, list, source.hidden, false);
  const std::vector<bool> others = leading_to(source, list, source.output, true);
  for (size_t i = 0; i < only.size(); ++i) only[i] = only[i] && !others[i];
  return only;
}

class Translator {
 public:
  Translator(const edge_program& source, const std::vector<Instruction>& list, KvType type)
      : source_(source), type_(type), list_(list), for_hidden_(only_for_hidden(source, list)) {}

  Program run(Placement placement) {
    Program program;
    program.context = source_.context;
    program.vocab = source_.vocab;
    program.sampleable = source_.sampleable;
    program.groups = state_groups(source_, type_);
    program.values = std::move(placement.values);
    program.arena_widths = placement.arena_widths;
    bind_states();
    program.embedding_rows = std::numeric_limits<int32_t>::max();
    for (int32_t i = 0; i < static_cast<int32_t>(list_.size()); ++i) {
      if (!placement.is_view[static_cast<size_t>(i)]) append_op(program, i);
    }
    program.logits = program.values[static_cast<size_t>(source_.output)];
    if (source_.hidden >= 0) program.hidden = program.values[static_cast<size_t>(source_.hidden)];
    return program;
  }

 private:
  const edge_instruction& instruction(int32_t i) const {
    return list_[static_cast<size_t>(i)].plain;
  }

  void append_op(Program& program, int32_t i) {
    const edge_instruction& in = instruction(i);
    Op op;
    op.code = static_cast<OpCode>(in.op);
    op.instructions = list_[static_cast<size_t>(i)].instructions;
    op.rows = static_cast<Rows>(source_.values[in.outputs[0]].rows);
    op.input_count = in.input_count;
    op.output_count = in.output_count;
    for (int32_t n = 0; n < in.input_count; ++n) {
      op.inputs[static_cast<size_t>(n)] = program.values[static_cast<size_t>(in.inputs[n])];
    }
    for (int32_t o = 0; o < in.output_count; ++o) {
      op.outputs[static_cast<size_t>(o)] = program.values[static_cast<size_t>(in.outputs[o])];
    }
    std::copy(std::begin(in.ints), std::end(in.ints), op.ints.begin());
    std::copy(std::begin(in.floats), std::end(in.floats), op.floats.begin());
    bind_weights(op, list_[static_cast<size_t>(i)]);
    op.for_hidden = for_hidden_[static_cast<size_t>(i)];
    op.prepared = op.code == OpCode::linear && is_prepared(i);
    if (op.code == OpCode::embedding) {
      program.embedding_rows = std::min(program.embedding_rows, op.weight.n);
    }
    if (op.code == OpCode::attention) {
      op.state = in.states[0];
      op.kv = states_[static_cast<size_t>(in.states[0])];
      op.group = source_.states[in.states[0]].group;
      op.window = source_.states[in.states[0]].window;
      op.rotate_q = rotation(list_[static_cast<size_t>(i)].rotations[0]);
      op.rotate_k = rotation(list_[static_cast<size_t>(i)].rotations[1]);
    }
    program.ops.push_back(op);
  }

  // The linear before, if there is one, left the rows of the same x in the same form. They are
  // still valid: x is alive until this one has read it.
  bool is_prepared(int32_t i) const {
    int32_t before = i - 1;
    while (before >= 0 && static_cast<OpCode>(instruction(before).op) != OpCode::linear) --before;
    if (before < 0 || instruction(before).inputs[0] != instruction(i).inputs[0]) return false;
    if (for_hidden_[static_cast<size_t>(before)] && !for_hidden_[static_cast<size_t>(i)])
      return false;
    const Instruction &a = list_[static_cast<size_t>(before)], &b = list_[static_cast<size_t>(i)];
    return a.norm == b.norm && a.eps == b.eps &&
           stored_format(source_.weights[a.plain.weights[0]]) ==
               stored_format(source_.weights[b.plain.weights[0]]);
  }

  void bind_weights(Op& op, const Instruction& instruction) const {
    const edge_instruction& in = instruction.plain;
    if (instruction.norm >= 0) {
      op.norm = static_cast<const float*>(source_.weights[instruction.norm].data);
      op.eps = instruction.eps;
    }
    size_t vectors = 0;
    for (int32_t number : in.weights) {
      if (number < 0) continue;
      const edge_weight& w = source_.weights[number];
      const auto format = stored_format(w);
      if (is_raw(format)) {
        op.vectors[vectors++] = static_cast<const float*>(w.data);
        op.table_cols = w.k;
      } else {
        op.weight = {format, w.n, w.k, static_cast<const uint8_t*>(w.data)};
      }
    }
    if (op.code != OpCode::linear) return;
    const float* const bias = op.vectors[0];
    if (instruction.up_row >= 0) {
      op.up = panel_data(op.weight, instruction.up_row / kLanes);
      if (bias != nullptr) op.up_bias = bias + instruction.up_row;
    }
    op.weight.data = panel_data(op.weight, instruction.first_row / kLanes);
    op.weight.n = op.outputs[0].width;
    if (bias != nullptr) op.vectors[0] = bias + instruction.first_row;
    op.epilogue = instruction.epilogue;
  }

  Rotation rotation(const Tables& tables) const {
    if (tables.cos < 0) return {};
    const edge_weight &cos = source_.weights[tables.cos], &sin = source_.weights[tables.sin];
    return {static_cast<const float*>(cos.data), static_cast<const float*>(sin.data), cos.k};
  }

  void bind_states() {
    std::vector<uint64_t> offsets;  // by group: where the next state begins in a block
    for (int32_t s = 0; s < source_.state_count; ++s) {
      const edge_state& state = source_.states[s];
      const auto group = static_cast<size_t>(state.group);
      if (group >= offsets.size()) offsets.resize(group + 1, 0);
      KvState kv;
      kv.offset = offsets[group];
      kv.kv_heads = state.heads;
      kv.head_dim = state.k_dim;
      kv.type = type_;
      offsets[group] += kv_state_bytes(state.heads, state.k_dim, type_);
      states_.push_back(kv);
    }
  }

  const edge_program& source_;
  const KvType type_;
  const std::vector<Instruction>& list_;
  const std::vector<bool> for_hidden_;  // by place in the list
  std::vector<KvState> states_;         // by number
};

}  // namespace

std::vector<StateGroup> state_groups(const edge_program& program, KvType type) {
  check_states(program);
  std::vector<StateGroup> groups;
  for (int32_t s = 0; s < program.state_count; ++s) {
    const edge_state& state = program.states[s];
    const auto group = static_cast<size_t>(state.group);
    if (group >= groups.size()) groups.resize(group + 1);
    groups[group].window = state.window;
    groups[group].block_bytes += kv_state_bytes(state.heads, state.k_dim, type);
  }
  return groups;
}

Program translate(const edge_program& source, const Kernels& kernels, KvType type, bool trace) {
  check_program(source);
  const std::vector<Instruction> list = trace ? unfused(source) : fuse(source, kernels);
  Program program = Translator(source, list, type).run(place(source, list, !trace));
  for (const bool hidden : {false, true}) {
    program.phases[hidden] = schedule(program.ops, kernels, true, hidden);
    program.bare_phases[hidden] = schedule(program.ops, kernels, false, hidden);
  }
  return program;
}

}  // namespace edge
