#include "core/profile.h"

#include <cstring>

#include "core/error.h"
#include "core/kernel.h"

namespace edge {

namespace {

constexpr int32_t kMostSteps = 1 << 20;

int32_t checked(int32_t steps) {
  if (steps < 1 || steps > kMostSteps) {
    fail(EDGE_INVALID, "a profile of %d steps, expected 1 to %d", steps, kMostSteps);
  }
  return steps;
}

}  // namespace

Profile::Profile(int32_t steps, int32_t phases, int32_t threads)
    : capacity_(checked(steps)),
      threads_(threads),
      stride_(round_up(2 * static_cast<int64_t>(phases), 8)),  // workers share no cache line
      steps_(sizeof(edge_profile_step) * static_cast<uint64_t>(steps), "a profile"),
      stamps_(sizeof(int64_t) * static_cast<uint64_t>(stride_) * static_cast<uint64_t>(threads) *
                  static_cast<uint64_t>(steps),
              "a profile") {}

int64_t* Profile::row(int32_t step, int32_t worker) const {
  return reinterpret_cast<int64_t*>(stamps_.data()) +
         (static_cast<int64_t>(step) * threads_ + worker) * stride_;
}

void Profile::begin(const edge_batch& batch, size_t phases) {
  if (count_ == capacity_) return;
  reinterpret_cast<edge_profile_step*>(steps_.data())[count_] = {
      batch.tokens_count,           batch.rows_count, threads_,
      static_cast<int32_t>(phases), nanoseconds(),    0};
}

void Profile::end() {
  if (count_ == capacity_) return;
  reinterpret_cast<edge_profile_step*>(steps_.data())[count_++].end = nanoseconds();
}

Stamps Profile::worker(int32_t index) const {
  return Stamps(count_ == capacity_ ? nullptr : row(count_, index));
}

void Profile::read(int32_t step, edge_profile_step* summary, int64_t* stamps,
                   uint64_t count) const {
  if (step < 0 || step >= count_) {
    fail(EDGE_INVALID, "step %d is not in the profile, which has %d", step, count_);
  }
  *summary = reinterpret_cast<const edge_profile_step*>(steps_.data())[step];
  if (stamps == nullptr) return;
  const auto width = 2 * static_cast<uint64_t>(summary->phases);
  if (count != width * static_cast<uint64_t>(threads_)) {
    fail(EDGE_INVALID, "step %d has %llu stamps, not %llu", step,
         static_cast<unsigned long long>(width * static_cast<uint64_t>(threads_)),
         static_cast<unsigned long long>(count));
  }
  for (int32_t worker = 0; worker < threads_; ++worker) {
    std::memcpy(stamps + static_cast<uint64_t>(worker) * width, row(step, worker),
                sizeof(int64_t) * width);
  }
}

}  // namespace edge
