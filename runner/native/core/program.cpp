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

// What of an instruction leads to something: nothing, what it writes to its state, or all of it.
enum class Lead : int32_t { none, written, whole };

// The instructions that lead to `value` (-1: none) or, with `states`, to what states keep.
std::vector<Lead> leading_to(const edge_program& source, const std::vector<Instruction>& list,
                             int32_t value, bool states) {
  std::vector<bool> wanted(static_cast<size_t>(source.value_count), false);
  std::vector<Lead> leading(list.size(), Lead::none);
  if (value >= 0) wanted[static_cast<size_t>(value)] = true;
  for (size_t i = list.size(); i-- > 0;) {
    const edge_instruction& in = list[i].plain;
    bool made = false;
    for (int32_t o = 0; o < in.output_count; ++o) {
      made = made || wanted[static_cast<size_t>(in.outputs[o])];
    }
    const bool writes = states && in.states[0] >= 0 && kRules[in.op].writes;
    if (!made && !writes) continue;
    // Of a draft's attention the keys and values alone lead to its state.
    const bool filled = !made && list[i].draft && static_cast<OpCode>(in.op) == OpCode::attention;
    leading[i] = filled ? Lead::written : Lead::whole;
    for (int32_t n = filled ? 1 : 0; n < in.input_count; ++n) {
      wanted[static_cast<size_t>(in.inputs[n])] = true;
    }
  }
  return leading;
}

std::vector<Use> uses_of(const edge_program& source, const std::vector<Instruction>& list) {
  const std::vector<Lead> hidden = leading_to(source, list, source.hidden, false);
  const std::vector<Lead> others = leading_to(source, list, source.output, true);
  constexpr Use kOfDraft[] = {Use::draft, Use::write, Use::fill};  // by Lead
  std::vector<Use> uses(list.size(), Use::always);
  for (size_t i = 0; i < uses.size(); ++i) {
    if (list[i].draft) {
      uses[i] = kOfDraft[static_cast<size_t>(others[i])];
    } else if (hidden[i] != Lead::none && others[i] == Lead::none) {
      uses[i] = Use::for_hidden;
    }
  }
  return uses;
}

FoldState fold_state(const edge_state& state) {
  return {state.sizes[k_fold_key_heads], state.sizes[k_fold_heads], state.sizes[k_fold_k_dim],
          state.sizes[k_fold_v_dim]};
}

// Bytes of one state in one block, a multiple of 64.
uint64_t state_bytes(const edge_state& state, KvType type) {
  switch (state.kind) {
    case EDGE_STATE_ROWS:
      return rows_state_bytes(state.sizes[k_rows_width]);
    case EDGE_STATE_FOLD:
      return fold_state_bytes(fold_state(state));
    default:
      return kv_state_bytes(state.sizes[k_kv_heads], state.sizes[k_kv_k_dim], type);
  }
}

class Translator {
 public:
  Translator(const edge_program& source, const std::vector<Instruction>& list, KvType type)
      : source_(source), type_(type), list_(list), uses_(uses_of(source, list)) {}

  Program run(Placement placement) {
    Program program;
    program.context = source_.context;
    program.vocab = source_.vocab;
    program.sampleable = source_.sampleable;
    program.groups = state_groups(source_, type_);
    offsets_ = state_offsets();
    program.values = std::move(placement.values);
    program.arena_widths = placement.arena_widths;
    program.embedding_rows = std::numeric_limits<int32_t>::max();
    for (int32_t i = 0; i < static_cast<int32_t>(list_.size()); ++i) {
      if (!placement.is_view[static_cast<size_t>(i)]) append_op(program, i);
    }
    program.logits = program.values[static_cast<size_t>(source_.output)];
    if (source_.hidden >= 0) program.hidden = program.values[static_cast<size_t>(source_.hidden)];
    if (source_.draft >= 0) finish_draft(program);
    return program;
  }

 private:
  const edge_instruction& instruction(int32_t i) const {
    return list_[static_cast<size_t>(i)].plain;
  }

  // A draft goes on from its own hidden states, which are kept where those of the model would be.
  void finish_draft(Program& program) const {
    program.draft_logits = program.values[static_cast<size_t>(source_.draft_output)];
    const auto is_kept = [](const Op& op) {
      return op.code == OpCode::previous && op.use == Use::fill;
    };
    Op keep = *std::find_if(program.ops.begin(), program.ops.end(), is_kept);
    keep.inputs[0] = program.values[static_cast<size_t>(source_.draft_hidden)];
    keep.use = Use::draft;
    keep.keeps_draft = true;
    program.ops.push_back(keep);
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
    op.use = uses_[static_cast<size_t>(i)];
    op.prepared = op.code == OpCode::linear && is_prepared(i);
    if (op.code == OpCode::embedding) {
      program.embedding_rows = std::min(program.embedding_rows, op.weight.n);
    }
    if (adapts(op.code)) note_adapters(program, op);
    if (in.states[0] >= 0) bind_state(op, in.states[0]);
    if (op.code == OpCode::attention || op.code == OpCode::attend) {
      op.rotate_q = rotation(list_[static_cast<size_t>(i)].rotations[0]);
      op.rotate_k = rotation(list_[static_cast<size_t>(i)].rotations[1]);
    }
    if (op.code == OpCode::causal_conv) {
      program.taps.push_back(taps_of(op));
      op.taps = program.taps.back().data();
    }
    program.ops.push_back(op);
  }

  static void note_adapters(Program& program, const Op& op) {
    static_assert(k_adapter_gather_adapters == 0 && k_adapter_down_adapters == 0 &&
                  k_adapter_up_adapters == 0);
    const int32_t count = op.ints[0];
    program.adapters = program.adapters == 0 ? count : std::min(program.adapters, count);
    if (op.code == OpCode::adapter_gather) {
      program.embedding_rows = std::min(program.embedding_rows, op.ints[k_adapter_gather_height]);
    }
    const Place &from = op.inputs[0], &to = op.outputs[0];
    if (op.code == OpCode::adapter_up && (from.offset != to.offset || from.column != to.column)) {
      program.adapts_in_place = false;
    }
  }

  // The linear before, if there is one, left the rows of the same x in the same form. They are
  // still valid: x is alive until this one has read it.
  bool is_prepared(int32_t i) const {
    int32_t before = i - 1;
    while (before >= 0 && static_cast<OpCode>(instruction(before).op) != OpCode::linear) --before;
    if (before < 0 || instruction(before).inputs[0] != instruction(i).inputs[0]) return false;
    const Use first = uses_[static_cast<size_t>(before)], second = uses_[static_cast<size_t>(i)];
    if (first != second && first != Use::always && first != Use::fill) return false;
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
    if (op.code == OpCode::route) {
      op.vectors = {vector(in.weights[0]), vector(in.weights[1])};
      return;
    }
    size_t vectors = 0;
    for (int32_t number : in.weights) {
      if (number < 0 || vectors == op.vectors.size()) continue;
      const edge_weight& w = source_.weights[number];
      const auto format = stored_format(w);
      if (is_raw(format)) {
        op.vectors[vectors++] = static_cast<const float*>(w.data);
        op.table_cols = w.k;
      } else {
        op.weight = {format, w.n, w.k, static_cast<const uint8_t*>(w.data)};
      }
    }
    if (op.code == OpCode::experts) return bind_experts(op, in);
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

  // The numbers of a raw weight; null for -1.
  const float* vector(int32_t number) const {
    return number < 0 ? nullptr : static_cast<const float*>(source_.weights[number].data);
  }

  void bind_experts(Op& op, const edge_instruction& in) const {
    const auto stack = [&](size_t place) {
      const edge_weight& w = source_.weights[in.weights[place]];
      return PackedWeight{stored_format(w), w.n, w.k, static_cast<const uint8_t*>(w.data)};
    };
    const auto bias = [&](size_t place) { return vector(in.weights[place]); };
    op.experts = {stack(0), stack(1), stack(2), bias(3), bias(4), bias(5)};
    constexpr Epilogue kGated[] = {Epilogue::silu_mul, Epilogue::gelu_mul, Epilogue::clamped_mul};
    op.epilogue = kGated[in.ints[k_experts_activation]];
  }

  Rotation rotation(const Tables& tables) const {
    if (tables.cos < 0) return {};
    const edge_weight &cos = source_.weights[tables.cos], &sin = source_.weights[tables.sin];
    return {static_cast<const float*>(cos.data), static_cast<const float*>(sin.data), cos.k};
  }

  // Where each state begins in a block of its group.
  std::vector<uint64_t> state_offsets() const {
    std::vector<uint64_t> offsets, ends;  // by state; by group
    for (int32_t s = 0; s < source_.state_count; ++s) {
      const auto group = static_cast<size_t>(source_.states[s].group);
      if (group >= ends.size()) ends.resize(group + 1, 0);
      offsets.push_back(ends[group]);
      ends[group] += state_bytes(source_.states[s], type_);
    }
    return offsets;
  }

  void bind_state(Op& op, int32_t number) const {
    const edge_state& state = source_.states[number];
    op.state = number;
    op.group = state.group;
    op.window = state.window;
    op.state_offset = offsets_[static_cast<size_t>(number)];
    if (state.kind == EDGE_STATE_KV) {
      op.kv = {state.sizes[k_kv_heads], state.sizes[k_kv_k_dim], type_};
    }
    if (state.kind == EDGE_STATE_FOLD) op.fold = fold_state(state);
  }

  // The weights of a convolution as its kernel streams them.
  static std::vector<float> taps_of(const Op& op) {
    const int32_t count = op.ints[k_causal_conv_taps];
    const auto width = static_cast<size_t>(op.outputs[0].width);
    const auto stride = static_cast<size_t>(round_up(op.outputs[0].width, kLanes));
    std::vector<float> taps((static_cast<size_t>(count) + 1) * stride, 0.0f);
    for (size_t c = 0; c < width; ++c) {
      for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
        taps[i * stride + c] = op.vectors[0][c * static_cast<size_t>(count) + i];
      }
    }
    const float* const bias = op.vectors[1];
    if (bias != nullptr) std::copy(bias, bias + width, taps.end() - static_cast<int64_t>(stride));
    return taps;
  }

  const edge_program& source_;
  const KvType type_;
  const std::vector<Instruction>& list_;
  const std::vector<Use> uses_;    // by place in the list
  std::vector<uint64_t> offsets_;  // by state
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
    groups[group].block_bytes += state_bytes(state, type);
  }
  return groups;
}

Program translate(const edge_program& source, const Kernels& kernels, KvType type, bool trace) {
  check_program(source);
  const std::vector<Instruction> list = trace ? unfused(source) : fuse(source, kernels);
  Program program = Translator(source, list, type).run(place(source, list, !trace));
  for (const bool adapted : {false, true}) {
    for (const bool hidden : {false, true}) {
      const Steps steps{hidden, adapted || !program.adapts_in_place};
      program.phases[adapted][hidden] = schedule(program.ops, kernels, true, steps);
      program.bare_phases[adapted][hidden] = schedule(program.ops, kernels, false, steps);
    }
  }
  if (source.draft >= 0) program.draft_phases = schedule_draft(program.ops, kernels);
  return program;
}

}  // namespace edge
