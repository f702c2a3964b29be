#include "core/place.h"

#include <algorithm>
#include <utility>

#include "core/arena.h"

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

class Placer {
 public:
  Placer(const edge_program& source, const std::vector<Instruction>& list, bool reuse)
      : source_(source),
        list_(list),
        count_(static_cast<int32_t>(list.size())),
        reuse_(reuse),
        last_use_(static_cast<size_t>(source.value_count), -1),
        buffer_of_(static_cast<size_t>(source.value_count), -1),
        column_of_(static_cast<size_t>(source.value_count), 0),
        is_view_(list.size(), false) {}

  Placement run() {
    find_last_uses();
    for (int32_t i = 0; i < count_; ++i) place_outputs(i);
    return lay_out();
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
    for (int32_t result : {source_.hidden, source_.draft_output, source_.draft_hidden}) {
      if (result >= 0) last_use(result) = count_;
    }
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
    if (static_cast<OpCode>(in.op) == OpCode::slice && slice_is_aligned(in)) {
      const int32_t column = in.ints[k_slice_index] * in.ints[k_slice_size];
      join(in.outputs[0], buffer_of(in.inputs[0]), column_of(in.inputs[0]) + column);
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

  // The same; what follows the last one is padding.
  static bool slice_is_aligned(const edge_instruction& in) {
    return in.ints[k_slice_size] % kLanes == 0 || in.ints[k_slice_count] == 1;
  }

  // The input whose place the output may take: of a linear the residual.
  static int32_t overwritten(const edge_instruction& in) {
    return in.inputs[static_cast<OpCode>(in.op) == OpCode::linear ? 1 : 0];
  }

  // The kernel allows it, and nobody reads that input, or what overlaps it, afterwards.
  bool may_write_in_place(int32_t i) {
    if (!reuse_) return false;
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

  Placement lay_out() {
    Placement result;
    result.is_view = std::move(is_view_);
    std::vector<int64_t> offsets(buffers_.size());
    for (Rows rows : {Rows::tokens, Rows::wanted}) {
      std::vector<Lifetime> lifetimes;
      std::vector<size_t> numbers;
      for (size_t b = 0; b < buffers_.size(); ++b) {
        if (buffers_[b].rows != rows) continue;
        lifetimes.push_back(buffers_[b].lifetime);
        numbers.push_back(b);
      }
      const ArenaPlan plan = plan_arena(lifetimes, reuse_);
      for (size_t n = 0; n < numbers.size(); ++n) offsets[numbers[n]] = plan.offsets[n];
      result.arena_widths[static_cast<size_t>(rows)] = plan.width;
    }
    result.values.resize(static_cast<size_t>(source_.value_count));
    for (int32_t v = kInputCount; v < source_.value_count; ++v) {
      Place& place = result.values[static_cast<size_t>(v)];
      place.rows = static_cast<Rows>(source_.values[v].rows);
      place.width = source_.values[v].width;
      if (buffer_of(v) < 0) continue;  // computed by no instruction
      const auto buffer = static_cast<size_t>(buffer_of(v));
      place.column = column_of(v);
      place.stride = buffers_[buffer].lifetime.width;
      place.offset = offsets[buffer];
    }
    return result;
  }

  const edge_program& source_;
  const std::vector<Instruction>& list_;
  const int32_t count_;
  const bool reuse_;
  std::vector<Buffer> buffers_;     // in order of birth
  std::vector<int32_t> last_use_;   // by value
  std::vector<int32_t> buffer_of_;  // by value; -1: not placed yet
  std::vector<int32_t> column_of_;  // by value
  std::vector<bool> is_view_;       // by instruction
};

}  // namespace

Placement place(const edge_program& source, const std::vector<Instruction>& list, bool reuse) {
  return Placer(source, list, reuse).run();
}

}  // namespace edge
