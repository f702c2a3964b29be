#include <vector>

#include "core/error.h"
#include "core/program.h"
#include "linear/packed.h"

namespace edge {

namespace {

constexpr int32_t kMaxWidth = 1 << 22;  // keeps every size below far from overflow

struct Signature {
  const char* name;
  int32_t inputs, weights;  // operands that must be there
};

constexpr Signature signatures[kOpCount] = {
    {"embedding", 1, 1}, {"linear", 1, 1}, {"rms_norm", 1, 1}, {"rope", 2, 2},
    {"attention", 5, 0}, {"silu", 1, 0},   {"gelu", 1, 0},     {"mul", 2, 0},
    {"add", 2, 0},       {"scale", 1, 0},  {"split", 1, 0},    {"select_rows", 2, 0},
    {"softcap", 1, 0},
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
  }

 private:
  void require(bool holds, const char* what) const {
    if (holds) return;
    if (index_ < 0) fail(EDGE_INVALID, "plan: %s", what);
    const int32_t op = program_.instructions[index_].op;
    fail(EDGE_INVALID, "plan: instruction %d (%s): %s", index_,
         op >= 0 && op < kOpCount ? signatures[op].name : "unknown", what);
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

  // Operand checks, for the instruction at hand.

  const edge_value& input(int32_t slot) const {
    return value(program_.instructions[index_].inputs[slot]);
  }
  const edge_value& output(int32_t slot) const {
    return value(program_.instructions[index_].outputs[slot]);
  }
  void require_input(int32_t slot, int32_t number) const {
    require(program_.instructions[index_].inputs[slot] == number, "an index input is not its own");
  }
  const edge_weight& weight(int32_t slot) const {
    const int32_t number = program_.instructions[index_].weights[slot];
    require(number >= 0 && number < program_.weight_count, "a weight is missing");
    return program_.weights[number];
  }
  const edge_weight& panel(int32_t slot) const {
    const edge_weight& w = weight(slot);
    require(!is_raw(stored_format(w)), "a weight is not a matrix");
    return w;
  }
  const edge_weight& raw(int32_t slot) const {
    const edge_weight& w = weight(slot);
    require(is_raw(stored_format(w)), "a weight is not raw f32");
    return w;
  }
  void require_vector(int32_t slot, int64_t size) const {
    const edge_weight& w = raw(slot);
    require(w.n == size && w.k == 1, "a vector has the wrong length");
  }
  void require_tokens() const {
    require(input(0).rows == 0 && output(0).rows == 0, "needs [T, ...] operands");
  }
  void require_same_shape() const {
    const edge_instruction& in = program_.instructions[index_];
    for (int32_t i = 0; i < in.input_count; ++i) {
      require(input(i).rows == output(0).rows && input(i).width == output(0).width,
              "operands differ in shape");
    }
  }

  void check_instruction() {
    const edge_instruction& in = program_.instructions[index_];
    require(in.op >= 0 && in.op < kOpCount, "unknown operator");
    const Signature& signature = signatures[in.op];
    const auto code = static_cast<OpCode>(in.op);
    require(in.input_count == signature.inputs, "wrong number of inputs");
    require(
        code == OpCode::split ? in.output_count >= 1 && in.output_count <= 4 : in.output_count == 1,
        "wrong number of outputs");
    for (int32_t i = 0; i < in.input_count; ++i) {
      const int32_t number = in.inputs[i];
      require(number >= 0 && number < program_.value_count, "an input is no value");
      require(number < kInputCount || defined_[static_cast<size_t>(number)],
              "an input is used before it is computed");
      const bool index =
          (code == OpCode::embedding && i == 0) || (code == OpCode::rope && i == 1) ||
          (code == OpCode::attention && i >= 3) || (code == OpCode::select_rows && i == 1);
      require(index == (number < kInputCount), "an input has the wrong dtype");
    }
    for (int32_t i = 0; i < in.output_count; ++i) {
      const int32_t number = in.outputs[i];
      require(number >= kInputCount && number < program_.value_count, "an output is no value");
      require(!defined_[static_cast<size_t>(number)], "an output is computed twice");
      defined_[static_cast<size_t>(number)] = true;
    }
    for (int32_t i = 0; i < signature.weights; ++i) weight(i);
    for (int32_t number : in.weights) {  // also those that the operator does not use
      require(number < program_.weight_count, "a weight is missing");
    }
    check_operands(code, in);
  }

  void check_operands(OpCode code, const edge_instruction& in) const {
    switch (code) {
      case OpCode::embedding:
        require_input(0, kTokens);
        require(output(0).rows == 0 && output(0).width == panel(0).k, "the table does not fit");
        break;
      case OpCode::linear:
        require(input(0).rows == output(0).rows, "operands differ in rows");
        require(input(0).width == panel(0).k && output(0).width == panel(0).n,
                "the weight does not fit");
        if (in.weights[1] >= 0) require_vector(1, panel(0).n);
        break;
      case OpCode::rms_norm:
        require_same_shape();
        require(in.ints[0] > 0 && output(0).width % in.ints[0] == 0, "the size does not fit");
        require_vector(0, in.ints[0]);
        break;
      case OpCode::rope:
        require_input(1, kPositions);
        require_tokens();
        require(input(0).width == output(0).width, "operands differ in shape");
        require(
            in.ints[0] > 0 && in.ints[1] > 0 && int64_t{in.ints[0]} * in.ints[1] == output(0).width,
            "heads * head_dim does not fit");
        require(raw(0).n >= program_.context && raw(1).n == raw(0).n && raw(1).k == raw(0).k &&
                    2 * raw(0).k <= in.ints[1],
                "the tables do not fit");
        break;
      case OpCode::attention:
        check_attention(in);
        break;
      case OpCode::split: {
        int64_t total = 0;
        for (int32_t i = 0; i < in.output_count; ++i) {
          require(output(i).rows == input(0).rows, "operands differ in rows");
          total += output(i).width;
        }
        require(total == input(0).width, "the widths do not add up");
        break;
      }
      case OpCode::select_rows:
        require_input(1, kRows);
        require(input(0).rows == 0 && output(0).rows == 1 && input(0).width == output(0).width,
                "operands do not fit");
        break;
      case OpCode::silu:
      case OpCode::gelu:
      case OpCode::silu_mul:
      case OpCode::gelu_mul:
      case OpCode::mul:
      case OpCode::add:
      case OpCode::scale:
      case OpCode::softcap:
        require_same_shape();
        break;
    }
  }

  void check_attention(const edge_instruction& in) const {
    require_input(3, kPositions);
    require_input(4, kSequences);
    require_tokens();
    const int32_t heads = in.ints[0], kv_heads = in.ints[1], head_dim = in.ints[2];
    require(in.state >= 0 && in.state < program_.state_count, "the state is missing");
    const edge_state& state = program_.states[in.state];
    require(state.heads == kv_heads && state.k_dim == head_dim, "the state does not fit");
    require(heads > 0 && heads % kv_heads == 0, "an attribute is out of range");
    const int64_t width = int64_t{heads} * head_dim, kv_width = int64_t{kv_heads} * head_dim;
    require(input(0).width == width && output(0).width == width && input(1).width == kv_width &&
                input(2).width == kv_width && input(1).rows == 0 && input(2).rows == 0,
            "q, k, v and the output do not fit");
  }

  const edge_program& program_;
  std::vector<bool> defined_;
  int32_t index_ = -1;
};

}  // namespace

WeightFormat stored_format(const edge_weight& weight) {
  const WeightFormat stored = {
      static_cast<Code>(weight.code), weight.group, static_cast<ScaleType>(weight.scale),
      static_cast<MinimumType>(weight.minimum), static_cast<Layout>(weight.layout)};
  for (const WeightFormat& format : kFormats) {
    if (format == stored) return format;
  }
  fail(EDGE_INVALID, "plan: a weight has an unknown format (%d %d %d %d %d)", weight.code,
       weight.group, weight.scale, weight.minimum, weight.layout);
}

void check_states(const edge_program& program) {
  if (program.state_count < 0 || (program.state_count > 0 && program.states == nullptr)) {
    fail(EDGE_INVALID, "plan: the states are missing");
  }
  std::vector<int32_t> windows;  // by group
  for (int32_t i = 0; i < program.state_count; ++i) {
    const edge_state& state = program.states[i];
    if (state.kind != 0)
      fail(EDGE_UNSUPPORTED, "plan: the kind of state %d is not runnable yet", i);
    if (state.heads <= 0 || state.k_dim <= 0 || state.heads > kMaxWidth / state.k_dim) {
      fail(EDGE_INVALID, "plan: the shape of state %d is out of range", i);
    }
    if (state.v_dim != state.k_dim) {
      fail(EDGE_UNSUPPORTED,
           "plan: state %d has keys of %d and values of %d columns, expected as many", i,
           state.k_dim, state.v_dim);
    }
    // Groups are numbered in the order of their first states, so that none is empty.
    const auto known = static_cast<int32_t>(windows.size());
    if (state.window < 0 || state.group < 0 || state.group > known) {
      fail(EDGE_INVALID, "plan: window or group of state %d is out of range", i);
    }
    if (state.group == known) windows.push_back(state.window);
    if (windows[static_cast<size_t>(state.group)] != state.window) {
      fail(EDGE_INVALID, "plan: state %d has another window than its group", i);
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
