#include "core/schedule.h"

namespace edge {

namespace {

enum class Space { tokens, wanted, linear_scratch, kv };

// A piece of memory that a phase reads or writes.
struct Access {
  Space space;
  Place place;
  bool write;
};

bool overlap(int64_t a, int64_t a_size, int64_t b, int64_t b_size) {
  return a < b + b_size && b < a + a_size;
}

bool conflict(const Access& a, const Access& b) {
  if (a.space != b.space || !(a.write || b.write)) return false;
  if (a.place.offset == b.place.offset && a.place.stride == b.place.stride) {
    return overlap(a.place.column, round_up(a.place.width, kLanes), b.place.column,
                   round_up(b.place.width, kLanes));
  }
  return overlap(a.place.offset, a.place.stride, b.place.offset, b.place.stride);
}

Access value(const Place& place, bool write) {
  return {place.rows == Rows::tokens ? Space::tokens : Space::wanted, place, write};
}

// Memory outside the arenas: unit `number` of its space.
Access unit(Space space, int32_t number, bool write) {
  Place place;
  place.offset = number;
  place.stride = place.width = 1;
  return {space, place, write};
}

std::vector<Access> accesses(const Op& op, int32_t part, int32_t parts) {
  std::vector<Access> list;
  const bool first = part == 0, last = part + 1 == parts;
  for (int32_t i = 0; i < op.input_count; ++i) {
    const Place& place = op.inputs[static_cast<size_t>(i)];
    if (place.stride != 0) list.push_back(value(place, false));
  }
  if (last) {
    for (int32_t o = 0; o < op.output_count; ++o) {
      list.push_back(value(op.outputs[static_cast<size_t>(o)], true));
    }
  }
  if (op.code == OpCode::linear && parts == 2)
    list.push_back(unit(Space::linear_scratch, 0, first));
  if (op.code == OpCode::attention) list.push_back(unit(Space::kv, op.state, first));
  return list;
}

int32_t count_parts(const Op& op, const Kernels& kernels) {
  if (op.code == OpCode::attention) return 2;  // write, attend
  // Prepare and multiply; a format that needs no scratch has nothing to prepare.
  if (op.code == OpCode::linear) return kernels.linear.scratch_bytes(op.weight, 1) > 0 ? 2 : 1;
  return 1;
}

const char* work_of(const Op& op, int32_t part, int32_t parts) {
  if (parts == 1) return "";
  if (op.code == OpCode::attention) return part == 0 ? "write" : "attend";
  return part == 0 ? "quantize" : "multiply";
}

}  // namespace

std::vector<Phase> schedule(const std::vector<Op>& ops, const Kernels& kernels, bool wanted_rows) {
  std::vector<Phase> phases;
  std::vector<Access> pending;  // of the phases since the last barrier
  for (size_t i = 0; i < ops.size(); ++i) {
    if (ops[i].rows == Rows::wanted && !wanted_rows) continue;
    const int32_t parts = count_parts(ops[i], kernels);
    for (int32_t part = 0; part < parts; ++part) {
      const std::vector<Access> mine = accesses(ops[i], part, parts);
      bool barrier = false;
      for (const Access& a : mine) {
        for (const Access& b : pending) barrier = barrier || conflict(a, b);
      }
      if (barrier) pending.clear();
      pending.insert(pending.end(), mine.begin(), mine.end());
      phases.push_back({static_cast<int32_t>(i), part, barrier, work_of(ops[i], part, parts)});
    }
  }
  return phases;
}

}  // namespace edge
