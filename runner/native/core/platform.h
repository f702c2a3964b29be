// What the core asks of the operating system and of the processor, in one place.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/topology.h"

namespace edge {

// Pages of the operating system. Huge ones, where it has them, suit memory that is read in parts
// far apart, each of which would miss the TLB; for what passes through the L2 cache again and again
// small ones are better (docs/log.md).
enum class PageSize { usual, huge };

// Zeroed, page-aligned memory that costs address space only until it is touched. Throws Error
// (EDGE_OUT_OF_MEMORY) naming `what`.
class Reservation {
 public:
  Reservation() = default;
  Reservation(uint64_t bytes, const char* what, PageSize size = PageSize::usual);
  ~Reservation();
  Reservation(Reservation&& other) noexcept;
  Reservation& operator=(Reservation&& other) noexcept;
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;

  uint8_t* data() const { return data_; }

 private:
  uint8_t* data_ = nullptr;
  uint64_t bytes_ = 0;
};

// Asks for the pages of mapped memory that is read soon, all at once; does not wait for them. Does
// nothing where the system has no such call.
void will_need(const void* data, uint64_t bytes);

// Physical cores that this process may run on, at least 1, as far as the system says: hyper-threads
// count once, and a container's CPU quota is respected.
Cores physical_cores();

// Nanoseconds that the calling thread has run for; where the system does not say, of a clock.
int64_t thread_nanoseconds();

// Tells the processor that this is a spin loop.
inline void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

#if defined(__aarch64__)
// What this processor can do beyond baseline aarch64, and the operating system says so.
struct ArmFeatures {
  bool dot_product;  // sdot
  bool int8_matrix;  // smmla
};
ArmFeatures arm_features();
#endif

// The logical CPU that the calling thread runs on, -1 where that is not known.
int32_t current_cpu();
// Moves the calling thread to another CPU than `cpu`, if it may run on any; it is free to wander
// again afterwards.
void leave_cpu(int32_t cpu);

// Sleeps while `word` holds `expected`; may return early.
void sleep_while(const std::atomic<uint32_t>& word, uint32_t expected);
// Wakes every thread that sleeps on `word`.
void wake_all(const std::atomic<uint32_t>& word);

// Registers what a forked child runs first. Only the forking thread lives on in it.
void in_forked_child(void (*handler)());

// The floating-point environment that the bit contract needs: round to nearest, denormals kept,
// no traps. The caller's own environment comes back at the end of the scope.
class FloatEnvironment {
 public:
  FloatEnvironment();
  ~FloatEnvironment();
  FloatEnvironment(const FloatEnvironment&) = delete;
  FloatEnvironment& operator=(const FloatEnvironment&) = delete;

 private:
  uint64_t saved_;
};

}  // namespace edge
