#include "core/program.h"

#include <algorithm>
#include <limits>

#include "core/arena.h"
#include "core/error.h"
#include "core/fuse.h"
#include "core/schedule.h"
#include "linear/packed.h"

namespace edge {

namespace {

// More values than this in one buffer, of which only hostile plans have so many, and nothing in it
// is written in place: looking at all of them for each instruction would take too long.
constexpr size_t kMostViews = 64;

// A buffer, and the instructions between which something lives in it.
struct Buffer {
  Rows rows;
  Lifetime lifetime;
  std::vector<int32_t> values;  // that lie in it, and may still be read
  size_t forget_at = kMostViews;
};

class Translator {
 public:
  Translator(const edge_program& source, const std::vector<Instruction>& list, KvType type,
             bool trace)
      : source_(source),
        type_(type),
        list_(list),
        count_(static_cast<int32_t>(list.size())),
        trace_(trace),
        last_use_(static_cast<size_t>(source.value_count), -1),
        buffer_of_(static_cast<size_t>(source.value_count), -1),
        column_of_(static_cast<size_t>(source.value_count), 0),
        is_view_(list.size(), false) {}

  Program run() {
    find_last_uses();
    for (int32_t i = 0; i < count_; ++i) place_outputs(i);
    Program program;
    program.context = source_.context;
    program.vocab = source_.vocab;
    program.sampleable = source_.sampleable;
    program.groups = state_groups(source_, type_);
    bind_states();
    lay_out(program);
    program.embedding_rows = std::numeric_limits<int32_t>::max();
    for (int32_t i = 0; i < count_; ++i) append_op(program, i);
    program.logits = program.values[static_cast<size_t>(source_.output)];
    return program;
  }

 private:
  const edge_instruction& instruction(int32_t i) const {
    return list_[static_cast<size_t>(i)].plain;
  }
  int32_t& buffer_of(int32_t value) { return buffer_of_[static_cast<size_t>(value)]; }
  int32_t& column_of(int32_t value) { return column_of_[static_cast<size_t>(value)]; }
  int32_t& last_use(int32_t value) { return last_use_[static_cast<size_t>(value)]; }

  void find_last_uses() {
    for (int32_t i = 0; i < count_; ++i) {
      for (int32_t o = 0; o < instruction(i).output_count; ++o) {
        last_use(instruction(i).outputs[o]) = i;
      }
      for (int32_t n = 0; n < instruction(i).input_count; ++n) {
        last_use(instruction(i).inputs[n]) = i;
      }
    }
    last_use(source_.output) = count_;
  }

  void join(int32_t value, int32_t buffer, int32_t column) {
    buffer_of(value) = buffer;
    column_of(value) = column;
    Buffer& joined = buffers_[static_cast<size_t>(buffer)];
    joined.lifetime.last = std::max(joined.lifetime.last, last_use(value));
    joined.values.push_back(value);
  }

  void new_buffer(int32_t value, int32_t born) {
    const edge_value& v = source_.values[value];
    // An odd number of cache lines, so that a column of many rows does not fall into few cache
    // sets.
    const int64_t width = (round_up(v.width, kLanes) / kLanes | 1) * kLanes;
    buffers_.push_back({static_cast<Rows>(v.rows), {width, born, born}, {}});
    join(value, static_cast<int32_t>(buffers_.size()) - 1, 0);
  }

  void place_outputs(int32_t i) {
    const edge_instruction& in = instruction(i);
    if (static_cast<OpCode>(in.op) == OpCode::split && split_is_aligned(in)) {
      int32_t column = column_of(in.inputs[0]);
      for (int32_t o = 0; o < in.output_count; ++o) {
        join(in.outputs[o], buffer_of(in.inputs[0]), column);
        column += source_.values[in.outputs[o]].width;
      }
      is_view_[static_cast<size_t>(i)] = true;
      return;
    }
    if (may_write_in_place(i)) {
      join(in.outputs[0], buffer_of(overwritten(in)), column_of(overwritten(in)));
      return;
    }
    for (int32_t o = 0; o < in.output_count; ++o) new_buffer(in.outputs[o], i);
  }

  // Kernels want rows on 64-byte boundaries, and may write the padding up to the next one.
  bool split_is_aligned(const edge_instruction& in) const {
    for (int32_t o = 0; o + 1 < in.output_count; ++o) {
      if (source_.values[in.outputs[o]].width % kLanes != 0) return false;
    }
    return true;
  }

  // The input whose place the output may take: of a linear the residual.
  static int32_t overwritten(const edge_instruction& in) {
    return in.inputs[static_cast<OpCode>(in.op) == OpCode::linear ? 1 : 0];
  }

  // The kernel allows it, and nobody reads that input, or what overlaps it, afterwards.
  bool may_write_in_place(int32_t i) {
    if (trace_) return false;
    const edge_instruction& in = instruction(i);
    const auto code = static_cast<OpCode>(in.op);
    if (code == OpCode::linear) {
      if (in.input_count < 2 || in.inputs[0] == in.inputs[1]) return false;
    } else if (in.op < kOpCount && !kRules[in.op].in_place) {
      return false;  // what fusion made may always
    }
    const int32_t x = overwritten(in);
    if (last_use(x) != i) return false;
    const int32_t begin = column_of(x), end = begin + source_.values[x].width;
    Buffer& buffer = buffers_[static_cast<size_t>(buffer_of(x))];
    forget_unread(buffer, i);
    if (buffer.values.size() > kMostViews) return false;
    for (int32_t v : buffer.values) {
      if (v == x || last_use(v) < i) continue;
      const int32_t other = column_of(v);
      if (other < end && begin < other + source_.values[v].width) return false;
    }
    return true;
  }

  // Forgets the values of a buffer that nobody reads from instruction `i` on, once they have
  // doubled.
  void forget_unread(Buffer& buffer, int32_t i) {
    std::vector<int32_t>& values = buffer.values;
    if (values.size() < buffer.forget_at) return;
    values.erase(
        std::remove_if(values.begin(), values.end(), [&](int32_t v) { return last_use(v) < i; }),
        values.end());
    buffer.forget_at = std::max(kMostViews, 2 * values.size());
  }

  void lay_out(Program& program) {
    std::vector<int64_t> offsets(buffers_.size());
    for (Rows rows : {Rows::tokens, Rows::wanted}) {
      std::vector<Lifetime> lifetimes;
      std::vector<size_t> numbers;
      for (size_t b = 0; b < buffers_.size(); ++b) {
        if (buffers_[b].rows != rows) continue;
        lifetimes.push_back(buffers_[b].lifetime);
        numbers.push_back(b);
      }
      const ArenaPlan plan = plan_arena(lifetimes, !trace_);
      for (size_t n = 0; n < numbers.size(); ++n) offsets[numbers[n]] = plan.offsets[n];
      program.arena_widths[static_cast<int32_t>(rows)] = plan.width;
    }
    program.values.resize(static_cast<size_t>(source_.value_count));
    for (int32_t v = kInputCount; v < source_.value_count; ++v) {
      Place& place = program.values[static_cast<size_t>(v)];
      place.rows = static_cast<Rows>(source_.values[v].rows);
      place.width = source_.values[v].width;
      if (buffer_of(v) < 0) continue;  // computed by no instruction
      const auto buffer = static_cast<size_t>(buffer_of(v));
      place.column = column_of(v);
      place.stride = buffers_[buffer].lifetime.width;
      place.offset = offsets[buffer];
    }
  }

  void append_op(Program& program, int32_t i) {
    if (is_view_[static_cast<size_t>(i)]) return;
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
  const int32_t count_;
  const bool trace_;
  std::vector<Buffer> buffers_;     // in order of birth
  std::vector<int32_t> last_use_;   // by value
  std::vector<int32_t> buffer_of_;  // by value; -1: not placed yet
  std::vector<int32_t> column_of_;  // by value
  std::vector<bool> is_view_;       // by instruction: nothing to run
  std::vector<KvState> states_;     // by number
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
  Program program = Translator(source, list, type, trace).run();
  program.phases = schedule(program.ops, kernels, true);
  program.bare_phases = schedule(program.ops, kernels, false);
  return program;
}

}  // namespace edge
