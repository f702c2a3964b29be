#include <algorithm>
#include <iterator>
#include <vector>

#include "core/error.h"
#include "core/program.h"
#include "linear/packed.h"

namespace edge {

namespace {

constexpr int32_t kMaxWidth = 1 << 22;  // keeps every size below far from overflow

// What the patterns of one instruction stand for, so far.
struct Known {
  int64_t numbers[kFirstVariable + kVariables];  // by source
  uint32_t bound = 0;                            // variables, by bit
  int32_t rows = 2;                              // 0: T, 1: R, 2: not known

  int64_t of(const Product& product) const {
    int64_t value = product.constant;
    if (product.a >= 0) value *= numbers[product.a];
    if (product.b >= 0) value *= numbers[product.b];
    return value;
  }

  // A variable that was not met before takes the size.
  bool matches(const Product& product, int64_t size) {
    const int32_t variable = product.a - kFirstVariable;
    if (variable >= 0 && product.b < 0 && product.constant == 1 && (bound >> variable & 1) == 0) {
      bound |= 1u << variable;
      numbers[product.a] = size;
    }
    return of(product) == size;
  }

  bool matches_rows(int32_t pattern, int32_t got) {
    if (pattern == 2 && rows == 2) rows = got;
    return got == (pattern == 2 ? rows : pattern);
  }
};

class Checker {
 public:
  explicit Checker(const edge_program& program)
      : program_(program), defined_(static_cast<size_t>(program.value_count), false) {}

  void run() {
    check_values();
    check_weights();
    for (index_ = 0; index_ < program_.instruction_count; ++index_) check_instruction();
    index_ = -1;
    require(program_.output >= kInputCount && program_.output < program_.value_count &&
                defined_[static_cast<size_t>(program_.output)],
            "the output is not a computed value");
    const edge_value& output = value(program_.output);
    require(output.rows == 1 && output.width == program_.vocab, "the output is not [R, vocab]");
    require(program_.draft != -1 || (program_.draft_output == -1 && program_.draft_hidden == -1),
            "there is no draft, but what it gives");
    if (program_.hidden == -1) return require(program_.draft == -1, "a draft needs hidden states");
    require(program_.hidden >= kInputCount && program_.hidden < program_.value_count &&
                defined_[static_cast<size_t>(program_.hidden)],
            "the hidden states are not a computed value");
    require(value(program_.hidden).rows == 0, "the hidden states are not [T, width]");
    if (program_.draft != -1) check_draft();
  }

 private:
  void require(bool holds, const char* what) const {
    if (holds) return;
    if (index_ < 0) fail(EDGE_INVALID, "plan: %s", what);
    const int32_t op = program_.instructions[index_].op;
    fail(EDGE_INVALID, "plan: instruction %d (%s): %s", index_,
         op >= 0 && op < kOpCount ? kRules[op].name : "unknown", what);
  }

  void check_draft() const {
    require(program_.draft >= 0 && program_.draft < program_.instruction_count,
            "the draft is no instruction");
    std::vector<bool> own(defined_.size(), false);
    int32_t kept = 0;
    for (int32_t i = program_.draft; i < program_.instruction_count; ++i) {
      const edge_instruction& in = program_.instructions[i];
      const bool keeps = in.op == EDGE_OP_PREVIOUS;
      kept += keeps;
      require(!keeps || in.inputs[0] == program_.hidden,
              "a draft keeps something else than the hidden states");
      for (int32_t n = keeps ? 1 : 0; n < in.input_count; ++n) {
        require(in.inputs[n] < kInputCount || own[static_cast<size_t>(in.inputs[n])],
                "a draft reads what it does not compute");
      }
      for (int32_t o = 0; o < in.output_count; ++o) own[static_cast<size_t>(in.outputs[o])] = true;
    }
    require(kept == 1, "a draft does not keep the hidden states once");
    for (int32_t number : {program_.draft_output, program_.draft_hidden}) {
      require(number >= kInputCount && number < program_.value_count &&
                  own[static_cast<size_t>(number)],
              "what a draft gives is not a value that it computes");
    }
    const edge_value &logits = value(program_.draft_output), &hidden = value(program_.draft_hidden);
    require(logits.rows == 1 && logits.width == program_.vocab,
            "a draft's logits are not [R, vocab]");
    require(hidden.rows == 0 && hidden.width == value(program_.hidden).width,
            "a draft's hidden states are not [T, width]");
  }

  const edge_value& value(int32_t number) const { return program_.values[number]; }

  void check_values() const {
    require(program_.context > 0 && program_.context <= kMaxContext, "context is out of range");
    require(program_.vocab > 0 && program_.vocab <= kMaxWidth, "vocab is out of range");
    require(program_.sampleable > 0 && program_.sampleable <= program_.vocab,
            "sampleable is not in 1..vocab");
    require(program_.value_count > kInputCount, "there are no values");
    require(program_.weight_count >= 0 && program_.instruction_count > 0,
            "a count is negative, or there are no instructions");
    for (int32_t i = 0; i < program_.value_count; ++i) {
      const edge_value& v = value(i);
      require(v.rows == 0 || v.rows == 1, "a value's rows are neither T nor R");
      require(v.width > 0 && v.width <= kMaxWidth, "a value's width is out of range");
      require(v.dtype == (i < kInputCount ? 1 : 0), "a value has the wrong dtype");
    }
  }

  void check_weights() const {
    for (int32_t i = 0; i < program_.weight_count; ++i) {
      const edge_weight& w = program_.weights[i];
      require(w.n > 0 && w.k > 0 && w.n <= kMaxContext && w.k <= kMaxContext,
              "a weight's shape is out of range");
      const WeightFormat format = stored_format(w);
      require(w.k % column_multiple(format) == 0,
              "a weight's columns are no multiple of its group");
      require(w.bytes == packed_bytes(format, w.n, w.k),
              "a weight's size does not fit its format and shape");
      require(w.data != nullptr && reinterpret_cast<uintptr_t>(w.data) % 64 == 0,
              "a weight is not 64-byte aligned");
    }
  }

  // The rules of the table, for the instruction at hand.
  void check_instruction() {
    const edge_instruction& in = program_.instructions[index_];
    require(in.op >= 0 && in.op < kOpCount, "unknown operator");
    const OpRules& rules = kRules[in.op];
    require(in.input_count == rules.input_count, "wrong number of inputs");
    require(rules.splits ? in.output_count >= 1 && in.output_count <= EDGE_MAX_OUTPUTS
                         : in.output_count == 1,
            "wrong number of outputs");
    Known known;
    know_numbers(rules, in, known);
    for (int32_t i = 0; i < in.input_count; ++i) {
      check_input(rules.inputs[i], in.inputs[i], known);
    }
    for (int32_t i = 0; i < EDGE_MAX_WEIGHTS; ++i) {
      if (i < rules.weight_count) {
        check_weight(rules.weights[i], in.weights[i], known);
      } else {
        require(in.weights[i] < 0, "a weight that it does not take");
      }
    }
    int64_t total = 0;
    for (int32_t i = 0; i < in.output_count; ++i) {
      define(in.outputs[i]);
      const edge_value& output = value(in.outputs[i]);
      require(known.matches_rows(rules.output.rows, output.rows), "the output has other rows");
      if (!rules.splits) {
        require(known.matches(rules.output.k, output.width), "the output has another width");
      }
      total += output.width;
    }
    if (rules.splits) require(total == value(in.inputs[0]).width, "the widths do not add up");
    if (in.op == EDGE_OP_SPLIT_HEADS) check_runs(in);
    for (int32_t i = 0; i < rules.requirement_count; ++i) check(rules.requirements[i], known);
    if (static_cast<OpCode>(in.op) == OpCode::experts) {  // their kernels read both side by side
      require(stored_format(program_.weights[in.weights[0]]) ==
                  stored_format(program_.weights[in.weights[1]]),
              "gate and up are of different formats");
    }
  }

  void know_numbers(const OpRules& rules, const edge_instruction& in, Known& known) const {
    for (int32_t i = 0; i < rules.int_count; ++i) {
      require(in.ints[i] >= rules.ints[i].low && in.ints[i] <= rules.ints[i].high,
              "an attribute is out of range");
      known.numbers[i] = in.ints[i];
    }
    const int32_t number = in.states[0];
    if (rules.state >= 0) {
      require(number >= 0 && number < program_.state_count, "the state is missing");
      const edge_state& state = program_.states[number];
      require(state.kind == rules.state, "the state is of another kind");
      std::copy(std::begin(state.sizes), std::end(state.sizes), known.numbers + kFirstSize);
      known.numbers[kFirstFact] = state.window;
    } else {
      require(number < 0, "a state that it does not take");
    }
    known.numbers[kFirstFact + 1] = program_.context;
  }

  void check_input(const OperandRule& rule, int32_t number, Known& known) const {
    if (rule.kind == OperandKind::index) {
      return require(number == rule.rows, "an index input is not its own");
    }
    require(number >= 0 && number < program_.value_count, "an input is no value");
    require(number >= kInputCount, "an input has the wrong dtype");
    require(defined_[static_cast<size_t>(number)], "an input is used before it is computed");
    require(known.matches_rows(rule.rows, value(number).rows), "an input has other rows");
    require(known.matches(rule.k, value(number).width), "an input has another width");
  }

  void check_weight(const OperandRule& rule, int32_t number, Known& known) const {
    if (number < 0 && rule.optional) return;
    require(number >= 0 && number < program_.weight_count, "a weight is missing");
    const edge_weight& weight = program_.weights[number];
    const bool raw = stored_format(weight).layout == Layout::raw;
    require(raw == (rule.kind == OperandKind::raw),
            raw ? "a weight is not a matrix in panels" : "a weight is not raw f32");
    require(known.matches(rule.n, weight.n) && known.matches(rule.k, weight.k),
            "a weight has another shape");
  }

  void define(int32_t number) {
    require(number >= kInputCount && number < program_.value_count, "an output is no value");
    require(!defined_[static_cast<size_t>(number)], "an output is computed twice");
    defined_[static_cast<size_t>(number)] = true;
  }

  // Outputs are slices of each of the runs.
  void check_runs(const edge_instruction& in) const {
    for (int32_t i = 0; i < in.output_count; ++i) {
      require(value(in.outputs[i]).width % in.ints[k_split_heads_heads] == 0,
              "an output's width is no multiple of the heads");
    }
  }

  void check(const Requirement& rule, const Known& known) const {
    const int64_t left = known.of(rule.left), right = known.of(rule.right);
    switch (rule.relation) {
      case Relation::equal:
        return require(left == right, "two sizes differ that should not");
      case Relation::at_most:
        return require(left <= right, "a size is too small for another");
      case Relation::less:
        return require(left < right, "a place is behind the last");
      case Relation::divides:
        return require(left > 0 && right % left == 0, "a size does not divide another");
    }
  }

  const edge_program& program_;
  std::vector<bool> defined_;
  int32_t index_ = -1;
};

// `number`: of the state.
void check_sizes(const edge_state& state, int32_t number) {
  constexpr auto kKinds = static_cast<int32_t>(std::size(kStateRules));
  const bool known = state.kind >= 0 && state.kind < kKinds;
  if (!known || kStateRules[state.kind].size_count == 0) {
    fail(EDGE_UNSUPPORTED, "plan: the kind of state %d is not runnable yet", number);
  }
  const StateRules& rules = kStateRules[state.kind];
  for (int32_t s = 0; s < EDGE_MAX_STATE_SIZES; ++s) {
    if (s < rules.size_count ? state.sizes[s] < 1 || state.sizes[s] > rules.most[s]
                             : state.sizes[s] != 0) {
      fail(EDGE_INVALID, "plan: the shape of state %d is out of range", number);
    }
  }
  if (state.kind == EDGE_STATE_KV && state.sizes[k_kv_v_dim] != state.sizes[k_kv_k_dim]) {
    fail(EDGE_UNSUPPORTED,
         "plan: state %d has keys of %d and values of %d columns, expected as many", number,
         state.sizes[k_kv_k_dim], state.sizes[k_kv_v_dim]);
  }
  if (state.kind == EDGE_STATE_FOLD &&
      state.sizes[k_fold_heads] % state.sizes[k_fold_key_heads] != 0) {
    fail(EDGE_INVALID, "plan: state %d has %d heads, expected a multiple of its %d key heads",
         number, state.sizes[k_fold_heads], state.sizes[k_fold_key_heads]);
  }
}

}  // namespace

WeightFormat stored_format(const edge_weight& weight) {
  const WeightFormat stored = {
      static_cast<Code>(weight.code),       weight.group,
      static_cast<ScaleType>(weight.scale), static_cast<MinimumType>(weight.minimum),
      static_cast<Layout>(weight.layout),   static_cast<Activations>(weight.activations)};
  const bool known = std::any_of(std::begin(kFormats), std::end(kFormats),
                                 [&](const auto& format) { return format == storage_of(stored); });
  if (known && (weight.activations == 0 || (weight.activations == 1 && is_quantized(stored)))) {
    return stored;
  }
  fail(EDGE_INVALID, "plan: a weight has an unknown format (%d %d %d %d %d %d)", weight.code,
       weight.group, weight.scale, weight.minimum, weight.layout, weight.activations);
}

void check_states(const edge_program& program) {
  if (program.state_count < 0 || (program.state_count > 0 && program.states == nullptr)) {
    fail(EDGE_INVALID, "plan: the states are missing");
  }
  std::vector<const edge_state*> first;  // by group
  for (int32_t i = 0; i < program.state_count; ++i) {
    const edge_state& state = program.states[i];
    check_sizes(state, i);
    // Groups are numbered in the order of their first states, so that none is empty.
    const auto known = static_cast<int32_t>(first.size());
    if (state.window < 0 || state.group < 0 || state.group > known) {
      fail(EDGE_INVALID, "plan: window or group of state %d is out of range", i);
    }
    if (state.group == known) first.push_back(&state);
    const edge_state& other = *first[static_cast<size_t>(state.group)];
    if (other.window != state.window || other.kind != state.kind) {
      fail(EDGE_INVALID, "plan: state %d has another window or kind than its group", i);
    }
  }
}

void check_program(const edge_program& program) {
  if (program.value_count < 0 || program.values == nullptr || program.instructions == nullptr ||
      (program.weight_count > 0 && program.weights == nullptr)) {
    fail(EDGE_INVALID, "plan: a table is missing");
  }
  check_states(program);
  Checker(program).run();
}

}  // namespace edge
