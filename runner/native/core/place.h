// Where the values of a program lie: splits become views, operators that allow it write in place of
// an operand, and what is not read any more gives its room to what comes next.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/fuse.h"
#include "core/program.h"

namespace edge {

struct Placement {
  std::vector<Place> values;  // by value number
  std::vector<bool> is_view;  // by instruction: a split or slice of which nothing is to be run
  std::array<int64_t, 2> arena_widths{};  // floats per row, by Rows
};

// For a program that passed check_program(), and its instructions after fusion. Without `reuse`
// nothing is ever overwritten.
Placement place(const edge_program& source, const std::vector<Instruction>& list, bool reuse);

}  // namespace edge
