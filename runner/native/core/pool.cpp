#include "core/pool.h"

#include <chrono>

#include "core/platform.h"

namespace edge {

namespace {

using Clock = std::chrono::steady_clock;

// Long enough for the waits inside a step, short enough to leave an idle core alone. Yielding
// instead of sleeping is worse: a thread that yields stays behind whoever else wants its core.
constexpr std::chrono::microseconds kSpin{50};
constexpr int kChecksPerClock = 32;

Pool* pool = nullptr;

}  // namespace

void Signal::advance() {
  value_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) != 0) wake_all(value_);
}

void Signal::wait_past(uint32_t seen, bool patient) {
  for (int i = 0; i < kChecksPerClock; ++i) {  // most waits end here, without a look at the clock
    if (value() != seen) return;
    cpu_relax();
  }
  const Clock::time_point begin = Clock::now();
  while (!patient && Clock::now() - begin < kSpin) {
    for (int i = 0; i < kChecksPerClock; ++i) {
      if (value() != seen) return;
      cpu_relax();
    }
  }
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (value_.load(std::memory_order_seq_cst) == seen) sleep_while(value_, seen);
  sleepers_.fetch_sub(1, std::memory_order_seq_cst);
}

Pool& Pool::instance() {
  // Never destroyed: threads may still sleep in it when the process ends. A forked child has none
  // of the threads, so it starts over with an empty pool.
  static const bool once = [] {
    pool = new Pool;
    in_forked_child([] { pool = new Pool; });
    return true;
  }();
  static_cast<void>(once);
  return *pool;
}

void Pool::claim(int32_t threads) {
  std::lock_guard<std::mutex> lock(mutex_);
  grow(threads);
  ++claims_;
}

void Pool::grow(int32_t threads) {
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
}

void Pool::release() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (claims_ > 0 && --claims_ > 0) return;  // 0: claimed before a fork
  stopping_ = true;
  for (auto& thread : threads_) thread->start.advance();
  for (auto& thread : threads_) thread->thread.join();
  threads_.clear();
  stopping_ = false;
}

void Pool::run(int32_t count, Task task, void* context, bool patient) {
  std::lock_guard<std::mutex> lock(mutex_);
  grow(count);  // does nothing, but in a forked child
  task_ = task;
  context_ = context;
  count_ = count;
  patient_.store(patient, std::memory_order_relaxed);
  if (count > 1) caller_cpu_ = current_cpu();
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
    passed_.wait_past(seen, patient_.load(std::memory_order_relaxed));
  }
}

void Pool::work(Thread* self, int32_t index) {
  FloatEnvironment environment;  // a thread inherits its creator's, whatever that was
  for (uint32_t seen = 0;; ++seen) {
    self->start.wait_past(seen, patient_.load(std::memory_order_relaxed));
    if (stopping_) return;
    const int32_t count = count_;
    // The system may have put this thread behind the caller, on a machine that has other work: then
    // each would wait for the other's time slice at every barrier.
    if (const int32_t cpu = current_cpu(); cpu >= 0 && cpu == caller_cpu_) leave_cpu(cpu);
    task_(context_, Worker{index, count});
    barrier(count);
  }
}

}  // namespace edge
