// Offsets of a step's intermediate values in one block of memory, shared by values whose lifetimes
// do not overlap.
#pragma once

#include <cstdint>
#include <vector>

namespace edge {

// A buffer of `width` floats per row, alive from instruction `first` to `last`, both included.
struct Lifetime {
  int64_t width;  // a multiple of 16
  int32_t first, last;
};

struct ArenaPlan {
  std::vector<int64_t> offsets;  // floats per row: with n rows, buffer i starts at offsets[i] * n
  int64_t width = 0;             // floats per row of the whole arena
};

// Offsets count floats per row, so a plan holds for any number of rows, and a one-token step
// touches a compact piece of memory. With `reuse` false every buffer keeps a place of its own.
ArenaPlan plan_arena(const std::vector<Lifetime>& buffers, bool reuse);

}  // namespace edge
