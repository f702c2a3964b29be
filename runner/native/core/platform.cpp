#include "core/platform.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <thread>
#include <utility>

#include "core/error.h"
#include "core/topology.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <pthread.h>
#include <sys/mman.h>
#endif

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#endif

#if defined(__linux__)
#include <linux/futex.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>
#else
#include <condition_variable>
#include <mutex>
#endif

#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#if defined(_WIN32)
#include <vector>
#endif
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace edge {

namespace {

// Null if there is no such memory.
void* reserve(uint64_t bytes, [[maybe_unused]] PageSize size) {
  if (bytes > static_cast<uint64_t>(PTRDIFF_MAX)) return nullptr;
#if defined(_WIN32)
  // Counts against the system's commit limit at once; pages come when they are touched.
  return VirtualAlloc(nullptr, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
#else
#if defined(MAP_NORESERVE)
  constexpr int kFlags = MAP_PRIVATE | MAP_ANON | MAP_NORESERVE;
#else
  constexpr int kFlags = MAP_PRIVATE | MAP_ANON;
#endif
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, kFlags, -1, 0);
  if (address == MAP_FAILED) return nullptr;
#if defined(MADV_HUGEPAGE)
  if (size == PageSize::huge) madvise(address, bytes, MADV_HUGEPAGE);  // a wish: may fail
#endif
  return address;
#endif
}

}  // namespace

Reservation::Reservation(uint64_t bytes, const char* what, PageSize size) : bytes_(bytes) {
  if (bytes == 0) return;
  data_ = static_cast<uint8_t*>(reserve(bytes, size));
  if (data_ == nullptr) {
    fail(EDGE_OUT_OF_MEMORY, "cannot reserve %llu bytes for %s",
         static_cast<unsigned long long>(bytes), what);
  }
}

void will_need([[maybe_unused]] const void* data, [[maybe_unused]] uint64_t bytes) {
#if !defined(_WIN32)
  static const auto kPage = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(data), first = begin / kPage * kPage;
  madvise(reinterpret_cast<void*>(first), begin + bytes - first, MADV_WILLNEED);  // may fail
#endif
}

Reservation::~Reservation() {
  if (data_ == nullptr) return;
#if defined(_WIN32)
  VirtualFree(data_, 0, MEM_RELEASE);
#else
  munmap(data_, bytes_);
#endif
}

Reservation::Reservation(Reservation&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

#if defined(_WIN32)
void in_forked_child(void (*)()) {}  // nothing forks here
#else
void in_forked_child(void (*handler)()) { pthread_atfork(nullptr, nullptr, handler); }
#endif

#if defined(__linux__)

namespace {

int32_t count_quota() { return quota_cores(""); }

bool in_virtual_machine() {
#if defined(__x86_64__)
  unsigned a, b, c = 0, d;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c >> 31) != 0;
#else
  return false;
#endif
}

// Cores that this process may run on; 0: not known.
Cores count_cores() {
  std::vector<int32_t> cpus;
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &allowed)) cpus.push_back(cpu);
    }
  }
  Cores cores = strong_cores("", cpus);
  // A virtual machine often shows each of its CPUs as a core of its own, whatever it runs on.
  const bool one_each = cores.count == static_cast<int32_t>(cpus.size());
  if (one_each && in_virtual_machine()) cores.sure = false;
  return cores;
}

}  // namespace

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

namespace {

int32_t count_quota() { return 0; }

#if defined(__APPLE__)

// The number that the system has under this name; 0: none.
int32_t system_number(const char* name) {
  int32_t value = 0;
  size_t bytes = sizeof value;
  return sysctlbyname(name, &value, &bytes, nullptr, 0) == 0 ? value : 0;
}

// The fast ones, where they differ: the others would make a step as slow as they are.
Cores count_cores() {
  int32_t fast = system_number("hw.perflevel0.physicalcpu");
  return {fast > 0 ? fast : system_number("hw.physicalcpu")};
}

#elif defined(_WIN32)

Cores count_cores() {
  DWORD_PTR allowed = 0, present = 0;
  DWORD bytes = 0;
  GetLogicalProcessorInformation(nullptr, &bytes);
  std::vector<SYSTEM_LOGICAL_PROCESSOR_INFORMATION> parts(bytes / sizeof parts[0]);
  if (!GetProcessAffinityMask(GetCurrentProcess(), &allowed, &present) ||
      !GetLogicalProcessorInformation(parts.data(), &bytes)) {
    return {};
  }
  Cores cores;
  for (const auto& part : parts) {
    cores.count +=
        part.Relationship == RelationProcessorCore && (part.ProcessorMask & allowed) != 0;
  }
  return cores;
}

#else

Cores count_cores() { return {}; }

#endif

// Without futexes all sleepers share one condition variable: rare, so crowding costs nothing.
std::mutex sleep_mutex;
std::condition_variable sleep_condition;

}  // namespace

int32_t current_cpu() { return -1; }

void leave_cpu(int32_t) {}

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

int64_t thread_nanoseconds() {
#if defined(__unix__) || defined(__APPLE__)
  timespec time;
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0) {
    return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
  }
#endif
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

Cores physical_cores() {
  Cores cores = count_cores();
  if (cores.count == 0) {
    cores = {static_cast<int32_t>(std::thread::hardware_concurrency()), false};
  }
  const int32_t quota = count_quota();
  if (quota > 0 && quota < cores.count) cores = {quota, true};
  cores.count = std::max(cores.count, 1);
  return cores;
}

#if defined(__aarch64__)

ArmFeatures arm_features() {
#if defined(__linux__)
  constexpr unsigned long kDotProduct = 1ul << 20, kInt8Matrix = 1ul << 13;  // asm/hwcap.h
  return {(getauxval(AT_HWCAP) & kDotProduct) != 0, (getauxval(AT_HWCAP2) & kInt8Matrix) != 0};
#elif defined(__APPLE__)
  return {system_number("hw.optional.arm.FEAT_DotProd") != 0,
          system_number("hw.optional.arm.FEAT_I8MM") != 0};
#elif defined(_WIN32)
  constexpr DWORD kDotProduct = 43, kInt8Matrix = 66;  // PF_ARM_V82_.. of recent winnt.h
  return {IsProcessorFeaturePresent(kDotProduct) != 0, IsProcessorFeaturePresent(kInt8Matrix) != 0};
#else
  return {false, false};
#endif
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
