#include "core/platform.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "core/error.h"

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#else
#include <condition_variable>
#include <mutex>
#endif
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

namespace edge {

Reservation::Reservation(uint64_t bytes, const char* what) : bytes_(bytes) {
  if (bytes == 0) return;
  void* address = MAP_FAILED;
  if (bytes <= static_cast<uint64_t>(PTRDIFF_MAX)) {
    address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  if (address == MAP_FAILED) {
    fail(EDGE_OUT_OF_MEMORY, "cannot reserve %llu bytes for %s",
         static_cast<unsigned long long>(bytes), what);
  }
  data_ = static_cast<uint8_t*>(address);
}

Reservation::~Reservation() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

Reservation::Reservation(Reservation&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

#if defined(__aarch64__) && defined(__linux__)

ArmFeatures arm_features() {
  return {(getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0, (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0};
}

#endif

void in_forked_child(void (*handler)()) { pthread_atfork(nullptr, nullptr, handler); }

#if defined(__linux__)

namespace {

// One line of a small file under /sys, or "".
std::string read_line(const std::string& path) {
  std::string line;
  if (std::FILE* file = std::fopen(path.c_str(), "re")) {
    char buffer[128];
    if (std::fgets(buffer, sizeof buffer, file) != nullptr) line = buffer;
    std::fclose(file);
  }
  return line;
}

// Cores' worth of time that a control group (version 2) grants, rounded up; 0: no limit known.
int32_t quota_cores() {
  long long quota = 0, period = 0;
  std::string line = read_line("/sys/fs/cgroup/cpu.max");
  if (std::sscanf(line.c_str(), "%lld %lld", &quota, &period) != 2 || quota <= 0 || period <= 0) {
    return 0;
  }
  return static_cast<int32_t>((quota + period - 1) / period);
}

}  // namespace

int32_t physical_cores() {
  std::set<std::string> cores;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &allowed)) continue;
      std::string topology = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
      std::string core = read_line(topology + "core_id");
      // Without topology (some containers) every logical CPU counts.
      cores.insert(core.empty() ? std::to_string(cpu)
                                : read_line(topology + "physical_package_id") + core);
    }
  }
  int32_t count = cores.empty() ? static_cast<int32_t>(std::thread::hardware_concurrency())
                                : static_cast<int32_t>(cores.size());
  int32_t quota = quota_cores();
  if (quota > 0 && quota < count) count = quota;
  return count > 0 ? count : 1;
}

int32_t current_cpu() { return sched_getcpu(); }

void leave_cpu(int32_t cpu) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < 2) return;
  cpu_set_t others = allowed;
  CPU_CLR(cpu, &others);
  sched_setaffinity(0, sizeof others, &others);
  sched_setaffinity(0, sizeof allowed, &allowed);
}

void sleep_while(const std::atomic<uint32_t>& word, uint32_t expected) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void wake_all(const std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

#else

int32_t physical_cores() {
  int32_t count = static_cast<int32_t>(std::thread::hardware_concurrency());
  return count > 0 ? count : 1;
}

int32_t current_cpu() { return -1; }

void leave_cpu(int32_t) {}

namespace {

// Without futexes all sleepers share one condition variable: rare, so crowding costs nothing.
std::mutex sleep_mutex;
std::condition_variable sleep_condition;

}  // namespace

void sleep_while(const std::atomic<uint32_t>& word, uint32_t expected) {
  std::unique_lock<std::mutex> lock(sleep_mutex);
  sleep_condition.wait(lock, [&] { return word.load() != expected; });
}

void wake_all(const std::atomic<uint32_t>&) {
  {
    std::lock_guard<std::mutex> lock(sleep_mutex);
  }
  sleep_condition.notify_all();
}

#endif

#if defined(__x86_64__)

// Every float operation of the core runs in SSE registers, so MXCSR is all there is to set:
// 0x1f80 is round to nearest, no flush to zero, denormals kept, exceptions masked.
FloatEnvironment::FloatEnvironment() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
FloatEnvironment::~FloatEnvironment() { _mm_setcsr(static_cast<uint32_t>(saved_)); }

#elif defined(__aarch64__)

FloatEnvironment::FloatEnvironment() {
  asm volatile("mrs %0, fpcr" : "=r"(saved_));
  asm volatile("msr fpcr, %0" ::"r"(uint64_t{0}));
}
FloatEnvironment::~FloatEnvironment() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

#else
#error "the floating-point environment of this processor is not known"
#endif

}  // namespace edge
