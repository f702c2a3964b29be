#include "core/experts.h"

#include <algorithm>
#include <cstring>

#include "core/epilogue.h"
#include "core/platform.h"
#include "linear/packed.h"

namespace edge {

namespace {

constexpr int64_t kProductBytes = 128 << 10;  // a part of L2

int64_t padded(int64_t columns) { return round_up(columns, kLanes); }

// A row of one expert: pair number p is row rows[p] with the share shares[p]; expert e has the
// pairs [first[e], first[e + 1]).
struct Groups {
  int32_t* first;
  int32_t* rows;
  float* shares;
};

int64_t pair_count(const ExpertsArgs& args, int64_t rows) { return rows * args.chosen; }

Groups groups_in(const ExpertsArgs& args) {
  auto* const first = reinterpret_cast<int32_t*>(args.own);
  int32_t* const rows = first + padded(args.experts + 1);
  return {first, rows, reinterpret_cast<float*>(rows + pair_count(args, args.most_rows))};
}

// Calls `visit(expert, share)` for the experts of a row.
template <class Visit>
void visit_chosen(const ExpertsArgs& args, int64_t row, Visit visit) {
  const float* const shares = args.shares.row(row);
  int32_t left = args.chosen;
  for (int32_t e = 0; e < args.experts && left > 0; ++e) {
    if (shares[e] == 0.0f) continue;
    --left;
    visit(e, shares[e]);
  }
}

Groups group(const ExpertsArgs& args) {
  const Groups groups = groups_in(args);
  int32_t* const first = groups.first;
  std::fill(first, first + args.experts + 1, 0);
  for (int64_t row = 0; row < args.x.rows; ++row) {
    visit_chosen(args, row, [&](int32_t e, float) { ++first[e + 1]; });
  }
  for (int32_t e = 0; e < args.experts; ++e) first[e + 1] += first[e];
  for (int64_t row = 0; row < args.x.rows; ++row) {  // first[e] runs ahead to first[e + 1]
    visit_chosen(args, row, [&](int32_t e, float share) {
      groups.rows[first[e]] = static_cast<int32_t>(row);
      groups.shares[first[e]++] = share;
    });
  }
  for (int32_t e = args.experts; e > 0; --e) first[e] = first[e - 1];
  first[0] = 0;
  return groups;
}

// Rows of x or of the gated products as the linears take them: quantized in the scratch, each with
// room of its own, or floats.
struct Operand {
  int64_t quantized;  // bytes a pair; 0: floats
  int64_t columns;
  uint8_t* scratch;
  float* floats;
};

struct Operands {
  Operand x, inner;
};

uint64_t lay_out(const LinearKernels& linear, const ExpertsArgs& args, Operands& operands) {
  const int64_t pairs = pair_count(args, args.most_rows);
  int64_t bytes = 0;
  const auto take = [&](int64_t size) {
    uint8_t* const place = args.shared + bytes;
    bytes += round_up(size, 64);
    return place;
  };
  const auto operand = [&](const PackedWeight& weight, bool floats) {
    Operand made{static_cast<int64_t>(linear.scratch_bytes(weight, 1)), padded(weight.k), nullptr,
                 nullptr};
    made.scratch = take(pairs * made.quantized);
    if (floats || made.quantized == 0) {
      made.floats = reinterpret_cast<float*>(take(pairs * made.columns * int64_t{sizeof(float)}));
    }
    return made;
  };
  operands.x = operand(args.stacks.gate, false);
  operands.inner = operand(args.stacks.down, true);
  return static_cast<uint64_t>(bytes);
}

Operands operands_of(const LinearKernels& linear, const ExpertsArgs& args) {
  Operands operands;
  lay_out(linear, args, operands);
  return operands;
}

// The linear of one expert, of `rows` rows each, over the pairs [first, first + count).
LinearArgs linear_of(const PackedWeight& stack, const float* bias, int32_t expert, int32_t rows,
                     const Operand& x, int64_t first, int32_t count) {
  LinearArgs args;
  args.weight = stack;
  args.weight.n = rows;
  args.weight.data = panel_data(stack, int64_t{expert} * (rows / kLanes));
  if (bias != nullptr) args.bias = bias + int64_t{expert} * rows;
  args.x = {x.floats + first * x.columns, x.columns, count, stack.k};
  args.scratch = x.scratch + first * x.quantized;
  return args;
}

// A row that all experts take is prepared once.
bool is_shared(const ExpertsArgs& args) { return args.x.rows == 1; }

// Calls `visit(expert, first pair, pairs)` for the experts with pairs in [begin, end).
template <class Visit>
void visit_experts(const ExpertsArgs& args, const Groups& groups, int64_t begin, int64_t end,
                   Visit visit) {
  for (int32_t e = 0; e < args.experts; ++e) {
    const int32_t first = groups.first[e], count = groups.first[e + 1] - first;
    if (count > 0 && first < end && begin < first + count) visit(e, first, count);
  }
}

// Asks for the weights of all experts that some row goes to, so that they are read from the file
// side by side instead of page after page. Workers take turns.
void read_ahead(const ExpertsArgs& args, const Groups& groups, Worker worker) {
  int32_t turn = 0;
  const auto ask = [](const PackedWeight& stack, int32_t expert, int32_t rows) {
    const int64_t panels = rows / kLanes;
    const uint8_t* const begin = panel_data(stack, expert * panels);
    const uint8_t* const end = panel_data(stack, (expert + 1) * panels);
    will_need(begin, static_cast<uint64_t>(end - begin));
  };
  for (int32_t e = 0; e < args.experts; ++e) {
    if (groups.first[e] == groups.first[e + 1] || turn++ % worker.count != worker.index) continue;
    ask(args.stacks.gate, e, args.inner);
    ask(args.stacks.up, e, args.inner);
    ask(args.stacks.down, e, args.x.cols);
  }
}

void gather(const Kernels& kernels, const ExpertsArgs& args, Worker worker) {
  const Groups groups = group(args);
  if (args.read_ahead) read_ahead(args, groups, worker);
  const Operand x = operands_of(kernels.linear, args).x;
  const int64_t pairs =
      is_shared(args) ? std::min(groups.first[args.experts], 1) : groups.first[args.experts];
  const Share mine = share(pairs, 1, worker);
  visit_experts(args, groups, mine.begin, mine.end, [&](int32_t e, int32_t first, int32_t count) {
    const int64_t begin = std::max<int64_t>(mine.begin, first);
    const int64_t end = std::min<int64_t>(mine.end, first + count);
    LinearArgs linear = linear_of(args.stacks.gate, nullptr, e, args.inner, x, first, count);
    for (int64_t pair = begin; pair < end; ++pair) {
      float* const row = args.x.row(groups.rows[pair]);
      if (x.quantized == 0) {
        std::memcpy(x.floats + pair * x.columns, row,
                    sizeof(float) * static_cast<size_t>(args.x.cols));
      } else {
        linear.x.data = row;  // as every row of x, when it is prepared
        linear.x.stride = 0;
        kernels.linear.prepare(linear, {pair - first, pair - first + 1});
      }
    }
  });
}

void gate(const Kernels& kernels, const ExpertsArgs& args, Worker worker) {
  const Groups groups = groups_in(args);
  const Operands operands = operands_of(kernels.linear, args);
  const ExpertStacks& stacks = args.stacks;
  const auto run = [&](int32_t e, int32_t first, int32_t count) {
    const int64_t prepared = is_shared(args) ? 0 : first;
    LinearArgs linear =
        linear_of(stacks.gate, stacks.gate_bias, e, args.inner, operands.x, prepared, count);
    const LinearArgs up =
        linear_of(stacks.up, stacks.up_bias, e, args.inner, operands.x, prepared, count);
    linear.epilogue = args.activation;
    linear.alpha = args.alpha;
    linear.limit = args.limit;
    linear.up = up.weight.data;
    linear.up_bias = up.bias;
    linear.y = {operands.inner.floats + first * operands.inner.columns, operands.inner.columns,
                count, args.inner};
    if (kernels.linear.finishes(linear)) {
      kernels.linear.multiply(linear, worker);
    } else {
      multiply_then_finish(kernels, linear, args.products, args.most_rows, worker);
    }
  };
  visit_experts(args, groups, 0, groups.first[args.experts], run);
}

void round_inner(const Kernels& kernels, const ExpertsArgs& args, Worker worker) {
  const Groups groups = groups_in(args);
  const Operand inner = operands_of(kernels.linear, args).inner;
  if (inner.quantized == 0) return;
  const Share mine = share(groups.first[args.experts], 1, worker);
  visit_experts(args, groups, mine.begin, mine.end, [&](int32_t e, int32_t first, int32_t count) {
    const LinearArgs linear =
        linear_of(args.stacks.down, nullptr, e, args.x.cols, inner, first, count);
    kernels.linear.prepare(linear, {std::max<int64_t>(mine.begin - first, 0),
                                    std::min<int64_t>(mine.end - first, count)});
  });
}

// Each worker makes some columns of all sums.
void down(const Kernels& kernels, const ExpertsArgs& args, Worker worker) {
  const Groups groups = groups_in(args);
  const Operand inner = operands_of(kernels.linear, args).inner;
  const ExpertStacks& stacks = args.stacks;
  const Share columns = share(args.y.cols, kLanes, worker);
  const int64_t width = columns.end - columns.begin;
  for (int64_t row = 0; row < args.y.rows; ++row) {
    std::fill_n(args.y.row(row) + columns.begin, width, 0.0f);
  }
  const auto run = [&](int32_t e, int32_t first, int32_t count) {
    const LinearArgs whole =
        linear_of(stacks.down, stacks.down_bias, e, args.x.cols, inner, first, count);
    const int64_t row_bytes = kLanes * int64_t{sizeof(float)} * count;
    const int64_t step = std::max<int64_t>(kProductBytes / row_bytes, 1) * kLanes;
    for (int64_t column = columns.begin; column < columns.end; column += step) {
      const auto taken = static_cast<int32_t>(std::min(step, columns.end - column));
      LinearArgs part = whole;
      part.weight.data = panel_data(whole.weight, column / kLanes);
      part.weight.n = taken;
      if (whole.bias != nullptr) part.bias = whole.bias + column;
      part.y = {args.products, padded(taken), count, taken};
      kernels.linear.multiply(part, Worker{});
      kernels.elementwise.add_scaled(part.y, groups.shares + first, groups.rows + first,
                                     {args.y.data + column, args.y.stride, args.y.rows, taken});
    }
  };
  visit_experts(args, groups, 0, groups.first[args.experts], run);
}

}  // namespace

uint64_t experts_bytes(const LinearKernels& linear, const ExpertsArgs& args) {
  Operands operands;
  return lay_out(linear, args, operands);
}

uint64_t experts_own_bytes(const ExpertsArgs& args) {
  const int64_t words = padded(args.experts + 1) + 2 * pair_count(args, args.most_rows);
  return static_cast<uint64_t>(round_up(words * 4, 128));  // workers write no neighbouring lines
}

void run_experts(const Kernels& kernels, const ExpertsArgs& args, int32_t part, Worker worker) {
  switch (part) {
    case kGather:
      return gather(kernels, args, worker);
    case kGate:
      return gate(kernels, args, worker);
    case kRound:
      return round_inner(kernels, args, worker);
    default:
      return down(kernels, args, worker);
  }
}

}  // namespace edge
