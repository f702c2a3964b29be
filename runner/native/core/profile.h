// When each worker began and ended each phase of the steps that are profiled.
#pragma once

#include <chrono>
#include <cstdint>

#include "core/platform.h"
#include "edge_llm.h"

namespace edge {

// Nanoseconds of a clock that never goes back.
inline int64_t nanoseconds() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch())
      .count();
}

// One worker's stamps of one step. Without memory behind it (no profile) a stamp costs a predicted
// branch.
class Stamps {
 public:
  explicit Stamps(int64_t* next) : next_(next) {}
  void add() {
    if (next_ != nullptr) *next_++ = nanoseconds();
  }

 private:
  int64_t* next_;
};

// Room for `steps` steps of at most `phases` phases; later steps are not recorded.
class Profile {
 public:
  Profile(int32_t steps, int32_t phases, int32_t threads);

  void begin(const edge_batch& batch, size_t phases);
  void end();
  Stamps worker(int32_t index) const;

  // Throws Error (EDGE_INVALID) if that step was not recorded, or `count` is not what it has.
  void read(int32_t step, edge_profile_step* summary, int64_t* stamps, uint64_t count) const;

 private:
  int64_t* row(int32_t step, int32_t worker) const;

  int32_t capacity_, threads_;
  int64_t stride_;  // stamps of one worker's step
  int32_t count_ = 0;
  Reservation steps_;   // edge_profile_step by number
  Reservation stamps_;  // [capacity, threads, stride] int64_t
};

}  // namespace edge
