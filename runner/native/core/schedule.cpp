#include "core/schedule.h"

namespace edge {

namespace {

enum class Space { tokens, wanted, linear_scratch, state, experts };

constexpr int32_t kByRows = -1;

// A piece of memory that a phase reads or writes. `unit`: columns that one worker takes at a time,
// of all rows; kByRows: a worker takes all columns of its rows; 0: workers share the place in
// another way. Phases that split a place alike need no barrier between them.
struct Access {
  Space space;
  Place place;
  bool write;
  int32_t unit;
};

bool overlap(int64_t a, int64_t a_size, int64_t b, int64_t b_size) {
  return a < b + b_size && b < a + a_size;
}

bool same(const Place& a, const Place& b) {
  return a.offset == b.offset && a.stride == b.stride && a.column == b.column && a.width == b.width;
}

bool conflict(const Access& a, const Access& b) {
  if (a.space != b.space || !(a.write || b.write)) return false;
  const bool one_buffer = a.place.offset == b.place.offset && a.place.stride == b.place.stride;
  if (a.unit == kByRows && b.unit == kByRows && one_buffer) return false;
  if (a.unit != 0 && a.unit == b.unit && same(a.place, b.place)) return false;
  if (one_buffer) {
    return overlap(a.place.column, round_up(a.place.width, kLanes), b.place.column,
                   round_up(b.place.width, kLanes));
  }
  return overlap(a.place.offset, a.place.stride, b.place.offset, b.place.stride);
}

Access value(const Place& place, bool write, int32_t unit) {
  return {place.rows == Rows::tokens ? Space::tokens : Space::wanted, place, write, unit};
}

// Memory outside the arenas: number `number` of its space.
Access other(Space space, int32_t number, bool write, int32_t unit = 0) {
  Place place;
  place.offset = number;
  place.stride = place.width = 1;
  return {space, place, write, unit};
}

// How the workers share what a phase reads and writes: Access::unit.
int32_t unit_of(const Op& op, int32_t part, Split split) {
  const bool one_row = split == Split::one_row;
  if (is_split_by_rows(op, part, split)) return kByRows;
  switch (op.code) {
    case OpCode::linear:
      return part == kMultiply ? kLanes : 0;
    case OpCode::adapter_down:
    case OpCode::adapter_up:
    case OpCode::select_rows:
    case OpCode::scale_rows:
    case OpCode::rescale:
    case OpCode::silu_mul:
    case OpCode::gelu_mul:
      return kLanes;
    case OpCode::rms_norm:
      return one_row ? op.ints[k_rms_norm_size] : 0;
    case OpCode::grouped_norm:
      return one_row ? op.ints[k_grouped_norm_size] : 0;
    case OpCode::rope:
      return one_row ? op.ints[k_rope_head_dim] : 0;
    case OpCode::causal_conv:
    case OpCode::previous:
      return kLanes;
    case OpCode::experts:
      return part == kDown ? kLanes : 0;
    case OpCode::attention:
      return one_row && part == kWrite ? op.ints[k_attention_head_dim] : 0;
    default:
      return kRules[static_cast<int32_t>(op.code)].elementwise ? kLanes : 0;
  }
}

bool keeps_rows(const Op& op) {
  return op.code == OpCode::causal_conv || op.code == OpCode::previous;
}

// Each part but the last leaves something for the next.
std::vector<Access> expert_accesses(const Op& op, int32_t part, int32_t unit) {
  std::vector<Access> list;
  if (part == kGather) {
    for (size_t i : {0, 1}) list.push_back(value(op.inputs[i], false, 0));
  } else {
    list.push_back(other(Space::experts, part - 1, false));
  }
  if (part == kDown) {
    list.push_back(value(op.outputs[0], true, unit));
  } else {
    list.push_back(other(Space::experts, part, true));
  }
  return list;
}

std::vector<Access> accesses(const Op& op, int32_t part, bool quantized, Split split) {
  std::vector<Access> list;
  const int32_t unit = unit_of(op, part, split);
  if (op.code == OpCode::experts) return expert_accesses(op, part, unit);
  const int32_t whole_unit = unit == kByRows ? kByRows : 0;
  const bool linear = op.code == OpCode::linear, attention = op.code == OpCode::attention;
  const bool folding = folds(op);  // writes and reads its state at once
  const bool writes = op.state >= 0 && part == kWrite && !folding;
  for (int32_t i = 0; i < op.input_count; ++i) {
    const Place& place = op.inputs[static_cast<size_t>(i)];
    if (place.stride == 0) continue;
    if (linear && i == 1) {  // the residual
      if (part == kMultiply) list.push_back(value(place, false, unit));
      continue;
    }
    if (quantized && part == kMultiply) continue;   // reads the scratch instead
    if (attention && writes == (i == 0)) continue;  // writes k and v, attends with q
    if (keeps_rows(op) && part == kRead) continue;  // reads the state instead
    const bool whole = linear || op.code == OpCode::adapter_down ||  // by every worker
                       (i == 1 && (op.code == OpCode::scale_rows || op.code == OpCode::adapter_up));
    list.push_back(value(place, false, whole ? whole_unit : unit));
  }
  if (!(linear && part == kPrepare) && !writes) {
    for (int32_t o = 0; o < op.output_count; ++o) {
      list.push_back(value(op.outputs[static_cast<size_t>(o)], true, unit));
    }
  }
  // In a step of one row every worker has a scratch of its own.
  if (quantized && split != Split::one_row) {
    list.push_back(other(Space::linear_scratch, 0, part == kPrepare, whole_unit));
  }
  // A convolution by columns reads of its state what the same worker has written.
  if (op.state >= 0) {
    const bool apart = keeps_rows(op) && unit != kByRows;
    list.push_back(other(Space::state, op.state, writes || folding, apart ? unit : 0));
  }
  return list;
}

int32_t first_part(const Op& op, bool quantized) {
  if (op.code == OpCode::attend) return kRead;
  return op.code == OpCode::linear && (op.prepared || !quantized) ? kMultiply : 0;
}

int32_t last_part(const Op& op) {
  if (op.code == OpCode::linear) return kMultiply;
  if (op.code == OpCode::experts) return kDown;
  if (folds(op)) return 0;
  return op.state >= 0 ? kRead : 0;
}

const char* work_of(const Op& op, int32_t part) {
  if (folds(op)) return "";
  if (op.state >= 0 && part == kWrite) return "write";
  if (op.code == OpCode::attention || op.code == OpCode::attend) return "attend";
  if (op.code == OpCode::causal_conv) return "convolve";
  if (op.code == OpCode::previous) return "read";
  if (op.code == OpCode::linear) return part == kPrepare ? "quantize" : "multiply";
  if (op.code == OpCode::experts) {
    constexpr const char* kNames[] = {"quantize", "gate", "quantize gated", "down"};
    return kNames[part];
  }
  return "";
}

// What has happened since the last barrier.
class Pending {
 public:
  // Whether a phase that does this needs a barrier first.
  bool add(const std::vector<Access>& accesses) {
    bool barrier = list_.size() > kMostPending;
    for (const Access& a : accesses) {
      for (const Access& b : list_) barrier = barrier || conflict(a, b);
    }
    if (barrier) list_.clear();
    list_.insert(list_.end(), accesses.begin(), accesses.end());
    return barrier;
  }

 private:
  // A barrier more costs little where so much happened without one, and every phase is compared
  // with all that is pending.
  static constexpr size_t kMostPending = 256;

  std::vector<Access> list_;
};

}  // namespace

bool is_split_by_rows(const Op& op, int32_t part, Split split) {
  const bool together = op.code == OpCode::experts || folds(op) || op.code == OpCode::attend ||
                        (op.code == OpCode::attention && part == kRead);
  return split == Split::rows && op.rows == Rows::tokens && !together;
}

namespace {

class Scheduling {
 public:
  explicit Scheduling(const Kernels& kernels) : kernels_(kernels) {}

  // Parts `first` (-1: that which is the first) to `last` (-1: the last) of operator `number`.
  void add(const Op& op, size_t number, int32_t first, int32_t last) {
    const bool quantized =
        op.code == OpCode::linear && kernels_.linear.scratch_bytes(op.weight, 1) > 0;
    if (first < 0) first = first_part(op, quantized);
    if (last < 0) last = last_part(op);
    for (int32_t part = first; part <= last; ++part) {
      Phase phase{static_cast<int32_t>(number), part, {}, work_of(op, part)};
      for (size_t split = 0; split < pending_.size(); ++split) {
        phase.barrier[split] =
            pending_[split].add(accesses(op, part, quantized, static_cast<Split>(split)));
      }
      phases.push_back(phase);
    }
  }

  std::vector<Phase> phases;

 private:
  const Kernels& kernels_;
  std::array<Pending, 3> pending_;  // by Split
};

}  // namespace

std::vector<Phase> schedule(const std::vector<Op>& ops, const Kernels& kernels, bool wanted_rows,
                            Steps steps) {
  Scheduling scheduling(kernels);
  for (size_t i = 0; i < ops.size(); ++i) {
    const Op& op = ops[i];
    if (op.rows == Rows::wanted && !wanted_rows) continue;
    if (op.use == Use::draft || (op.use == Use::for_hidden && !steps.hidden)) continue;
    if (adapts(op.code) && !steps.adapted) continue;
    scheduling.add(op, i, -1, op.use == Use::write ? kWrite : -1);
  }
  return scheduling.phases;
}

std::vector<Phase> schedule_draft(const std::vector<Op>& ops, const Kernels& kernels) {
  Scheduling scheduling(kernels);
  for (size_t i = 0; i < ops.size(); ++i) {
    const Op& op = ops[i];
    if (op.use == Use::always || op.use == Use::for_hidden) continue;
    if (op.code != OpCode::previous) {
      scheduling.add(op, i, -1, -1);
    } else if (op.keeps_draft) {
      scheduling.add(op, i, kWrite, kWrite);
    } else {
      scheduling.add(op, i, kRead, kRead);
    }
  }
  return scheduling.phases;
}

}  // namespace edge
