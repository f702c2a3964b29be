// Cuts operators into phases, and puts a barrier only where one phase needs another's results.
#pragma once

#include <vector>

#include "core/program.h"

namespace edge {

// What steps have in them: wanted hidden states, and sequences with adapters.
struct Steps {
  bool hidden, adapted;
};

// With `wanted_rows` false, operators over [R, ...] are left out, and so are those that only what
// is not in such steps needs. Of a draft what fills its states is run.
std::vector<Phase> schedule(const std::vector<Op>& ops, const Kernels& kernels, bool wanted_rows,
                            Steps steps);
// Those of a step that makes a draft: no operator of the language model is run.
std::vector<Phase> schedule_draft(const std::vector<Op>& ops, const Kernels& kernels);

// Whether a worker does this part of an operator for its rows alone: share(T, 1, worker).
bool is_split_by_rows(const Op& op, int32_t part, Split split);

}  // namespace edge
