#include "core/arena.h"

#include <algorithm>
#include <array>
#include <map>
#include <queue>
#include <set>

namespace edge {

namespace {

// The free space below the end of what is used, for finding the lowest gap that is wide enough.
class Gaps {
 public:
  int64_t end() const { return end_; }

  // Takes `width` from the lowest gap that has it, or from the end.
  int64_t take(int64_t width) {
    const int64_t offset = lowest(width);
    if (offset == end_) {
      end_ += width;
      return offset;
    }
    const int64_t size = by_offset_.at(offset);
    remove(offset);
    if (size > width) add(offset + width, size - width);
    return offset;
  }

  // Gives back what was taken, joined with the gaps beside it.
  void give(int64_t offset, int64_t width) {
    const auto after = by_offset_.find(offset + width);
    if (after != by_offset_.end()) {
      width += after->second;
      remove(after->first);
    }
    auto before = by_offset_.lower_bound(offset);
    if (before != by_offset_.begin() && (--before)->first + before->second == offset) {
      offset = before->first;
      width += before->second;
      remove(offset);
    }
    if (offset + width == end_) {
      end_ = offset;
    } else {
      add(offset, width);
    }
  }

 private:
  // Gaps that are looked at before one that is certainly wide enough is taken: only hostile plans
  // leave so many.
  static constexpr int kMostTries = 64;

  static size_t class_of(int64_t width) {
    size_t bits = 0;
    while (width >>= 1) ++bits;
    return bits;
  }

  int64_t lowest(int64_t width) const {
    int64_t offset = end_;
    size_t size_class = class_of(width);
    int tries = 0;
    for (int64_t gap : by_class_[size_class]) {
      if (++tries > kMostTries) break;
      if (by_offset_.at(gap) < width) continue;
      offset = gap;
      break;
    }
    while (++size_class < by_class_.size()) {  // any of these is wide enough
      const std::set<int64_t>& gaps = by_class_[size_class];
      if (!gaps.empty()) offset = std::min(offset, *gaps.begin());
    }
    return offset;
  }

  void add(int64_t offset, int64_t width) {
    by_offset_[offset] = width;
    by_class_[class_of(width)].insert(offset);
  }

  void remove(int64_t offset) {
    by_class_[class_of(by_offset_.at(offset))].erase(offset);
    by_offset_.erase(offset);
  }

  int64_t end_ = 0;
  std::map<int64_t, int64_t> by_offset_;        // width of each gap
  std::array<std::set<int64_t>, 64> by_class_;  // offsets by floor(log2(width))
};

}  // namespace

ArenaPlan plan_arena(const std::vector<Lifetime>& buffers, bool reuse) {
  ArenaPlan plan;
  plan.offsets.assign(buffers.size(), 0);
  Gaps gaps;
  using End = std::pair<int32_t, size_t>;  // last use, buffer
  std::priority_queue<End, std::vector<End>, std::greater<End>> alive;
  for (size_t i = 0; i < buffers.size(); ++i) {
    while (reuse && !alive.empty() && alive.top().first < buffers[i].first) {
      const size_t dead = alive.top().second;
      alive.pop();
      gaps.give(plan.offsets[dead], buffers[dead].width);
    }
    plan.offsets[i] = gaps.take(buffers[i].width);
    plan.width = std::max(plan.width, gaps.end());
    alive.emplace(buffers[i].last, i);
  }
  return plan;
}

}  // namespace edge
