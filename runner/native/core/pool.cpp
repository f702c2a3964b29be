#include "core/pool.h"

#include <chrono>

#include "core/platform.h"

namespace edge {

namespace {

using Clock = std::chrono::steady_clock;

// Long enough to bridge the gap between two decode steps, short enough to leave idle cores alone.
constexpr std::chrono::microseconds kSpin{60};
constexpr std::chrono::microseconds kYield{60};
constexpr int kChecksPerClock = 32;

}  // namespace

void Signal::advance() {
  value_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) != 0) wake_all(value_);
}

void Signal::wait_past(uint32_t seen) {
  for (int i = 0; i < kChecksPerClock; ++i) {  // most waits end here, without a look at the clock
    if (value() != seen) return;
    cpu_relax();
  }
  const Clock::time_point begin = Clock::now();
  while (Clock::now() - begin < kSpin) {
    for (int i = 0; i < kChecksPerClock; ++i) {
      if (value() != seen) return;
      cpu_relax();
    }
  }
  while (Clock::now() - begin < kSpin + kYield) {
    if (value() != seen) return;
    cpu_yield();
  }
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (value_.load(std::memory_order_seq_cst) == seen) sleep_while(value_, seen);
  sleepers_.fetch_sub(1, std::memory_order_seq_cst);
}

Pool& Pool::instance() {
  // Never destroyed: threads may still sleep in it when the process ends.
  static Pool* pool = new Pool;
  return *pool;
}

void Pool::claim(int32_t threads) {
  std::lock_guard<std::mutex> lock(mutex_);
  // The caller is worker 0, so thread i of the vector is worker i + 1.
  while (static_cast<int32_t>(threads_.size()) + 1 < threads) {
    threads_.push_back(std::make_unique<Thread>());
    Thread* self = threads_.back().get();
    int32_t index = static_cast<int32_t>(threads_.size());
    try {
      self->thread = std::thread([this, self, index] { work(self, index); });
    } catch (...) {
      threads_.pop_back();
      throw;
    }
  }
  ++claims_;
}

void Pool::release() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (--claims_ > 0) return;
  stopping_ = true;
  for (auto& thread : threads_) thread->start.advance();
  for (auto& thread : threads_) thread->thread.join();
  threads_.clear();
  stopping_ = false;
}

void Pool::run(int32_t count, Task task, void* context) {
  std::lock_guard<std::mutex> lock(mutex_);
  task_ = task;
  context_ = context;
  count_ = count;
  for (int32_t i = 1; i < count; ++i) threads_[static_cast<size_t>(i - 1)]->start.advance();
  task(context, Worker{0, count});
  barrier(count);
}

void Pool::barrier(int32_t count) {
  if (count == 1) return;
  const uint32_t seen = passed_.value();  // before arriving: the last one to arrive moves it
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count) {
    arrived_.store(0, std::memory_order_relaxed);
    passed_.advance();
  } else {
    passed_.wait_past(seen);
  }
}

void Pool::work(Thread* self, int32_t index) {
  FloatEnvironment environment;  // a thread inherits its creator's, whatever that was
  for (uint32_t seen = 0;; ++seen) {
    self->start.wait_past(seen);
    if (stopping_) return;
    const int32_t count = count_;
    task_(context_, Worker{index, count});
    barrier(count);
  }
}

}  // namespace edge
