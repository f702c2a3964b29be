// The process's one thread pool. Every model runs its steps here, one at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/kernel.h"

namespace edge {

// A counter that threads wait on: spinning first, then asleep, because a pure spin gets many
// times slower as soon as one foreign process wants a core.
class Signal {
 public:
  uint32_t value() const { return value_.load(std::memory_order_acquire); }
  void advance();
  // Returns once the value differs from `seen`; asleep from the beginning, if patient.
  void wait_past(uint32_t seen, bool patient);

 private:
  std::atomic<uint32_t> value_{0};
  std::atomic<uint32_t> sleepers_{0};
};

class Pool {
 public:
  using Task = void (*)(void* context, Worker worker);

  static Pool& instance();

  // A model's claim on `threads` threads (its caller's thread included). Threads live from the
  // first claim that needs them until the last release.
  void claim(int32_t threads);
  void release();

  // Runs task(context, worker) on `count` threads at once, the caller's being worker 0, and returns
  // when all have ended. A second caller waits its turn. Patient workers do not spin.
  void run(int32_t count, Task task, void* context, bool patient = false);

  // Inside a task: returns once all workers of the task have arrived.
  void barrier(int32_t count);

 private:
  struct alignas(64) Thread {
    Signal start;
    std::thread thread;
  };

  void grow(int32_t threads);
  void work(Thread* self, int32_t index);

  std::mutex mutex_;  // held while a task runs, and while threads come and go
  std::vector<std::unique_ptr<Thread>> threads_;
  int32_t claims_ = 0;
  bool stopping_ = false;

  Task task_ = nullptr;
  void* context_ = nullptr;
  int32_t count_ = 0;
  int32_t caller_cpu_ = -1;
  std::atomic<bool> patient_{false};  // of the last task
  alignas(64) std::atomic<int32_t> arrived_{0};
  alignas(64) Signal passed_;
};

}  // namespace edge
