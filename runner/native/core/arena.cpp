#include "core/arena.h"

#include <algorithm>

namespace edge {

ArenaPlan plan_arena(const std::vector<Lifetime>& buffers, bool reuse) {
  ArenaPlan plan;
  plan.offsets.assign(buffers.size(), 0);
  std::vector<size_t> placed;  // by offset; buffers that are still alive at the current one's birth
  for (size_t i = 0; i < buffers.size(); ++i) {
    const Lifetime& buffer = buffers[i];
    if (reuse) {
      placed.erase(std::remove_if(placed.begin(), placed.end(),
                                  [&](size_t p) { return buffers[p].last < buffer.first; }),
                   placed.end());
    }
    // First fit: the lowest gap that is wide enough.
    int64_t offset = 0;
    auto position = placed.begin();
    for (; position != placed.end(); ++position) {
      if (offset + buffer.width <= plan.offsets[*position]) break;
      offset = plan.offsets[*position] + buffers[*position].width;
    }
    plan.offsets[i] = offset;
    plan.width = std::max(plan.width, offset + buffer.width);
    placed.insert(position, i);
  }
  return plan;
}

}  // namespace edge
