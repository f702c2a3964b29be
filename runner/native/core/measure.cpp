#include "core/measure.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "core/dispatch.h"
#include "core/error.h"
#include "core/platform.h"
#include "core/pool.h"
#include "core/profile.h"

namespace edge {

namespace {

// Beyond any cache; read a window at a time, so that the best moment of a busy machine is found,
// and the better of two ways.
constexpr int64_t kBytes = int64_t{512} << 20, kWindow = int64_t{64} << 20;
constexpr int64_t kUnit = int64_t{1} << 16;
constexpr int64_t kAttempt = 500'000;  // nanoseconds of arithmetic between two looks at the clock
constexpr int32_t kLeast = 4;          // attempts, however long they take

struct Job {
  const CeilingKernels& kernels;
  uint8_t* data;   // kBytes
  int64_t window;  // the next one to read
  int64_t rounds;
  uint64_t seen[64];  // by worker, so that nothing that was read goes unused
};

void touch(void* context, Worker worker) {
  auto* job = static_cast<Job*>(context);
  const Share part = share(kBytes, kUnit, worker);
  std::memset(job->data + part.begin, 1, static_cast<size_t>(part.end - part.begin));
}

void read(void* context, Worker worker) {
  auto* job = static_cast<Job*>(context);
  const Share part = share(kWindow, kUnit, worker);
  const auto kernel = job->window % 2 != 0 && job->kernels.read_ahead != nullptr
                          ? job->kernels.read_ahead
                          : job->kernels.read;
  job->seen[worker.index % 64] = kernel(job->data + job->window * kWindow + part.begin,
                                        static_cast<size_t>(part.end - part.begin));
}

void multiply(void* context, Worker) {
  auto* job = static_cast<Job*>(context);
  job->kernels.multiply(job->rounds);
}

int64_t timed(int32_t threads, Pool::Task task, Job* job) {
  const int64_t begin = nanoseconds();
  Pool::instance().run(threads, task, job);
  return std::max<int64_t>(1, nanoseconds() - begin);
}

// The shortest of as many attempts as fit into `budget` nanoseconds.
int64_t best(int32_t threads, Pool::Task task, Job* job, int64_t budget) {
  int64_t shortest = INT64_MAX;
  for (int32_t attempt = 0; attempt < kLeast || budget > 0; ++attempt) {
    const int64_t taken = timed(threads, task, job);
    shortest = std::min(shortest, taken);
    job->window = (job->window + 1) % (kBytes / kWindow);
    budget -= taken;
  }
  return shortest;
}

// Of one attempt: by worker, the time that it ran for.
struct Attempt {
  const CeilingKernels& kernels;
  int64_t rounds;
  std::vector<int64_t> taken;
};

void attempt(void* context, Worker worker) {
  auto* job = static_cast<Attempt*>(context);
  const int64_t begin = thread_nanoseconds();
  job->kernels.multiply(job->rounds);
  job->taken[static_cast<size_t>(worker.index)] = thread_nanoseconds() - begin;
}

// Nanoseconds that the slowest of `threads` takes for the same work: the median of some attempts,
// not the best, in which the threads may have run one after the other.
int64_t usual(int32_t threads, Attempt* job) {
  constexpr size_t kAttempts = 7;
  std::array<int64_t, kAttempts> taken;
  for (int64_t& longest : taken) {
    job->taken.assign(static_cast<size_t>(threads), 0);
    Pool::instance().run(threads, attempt, job);
    longest = *std::max_element(job->taken.begin(), job->taken.end());
  }
  std::nth_element(taken.begin(), taken.begin() + kAttempts / 2, taken.end());
  return std::max<int64_t>(taken[kAttempts / 2], 1);
}

class Claim {
 public:
  explicit Claim(int32_t threads) { Pool::instance().claim(threads); }
  ~Claim() { Pool::instance().release(); }
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;
};

}  // namespace

int32_t measure_cores(int32_t cpus) {
  if (cpus < 1 || cpus > 1024) fail(EDGE_INVALID, "cpus is %d, expected 1 to 1024", cpus);
  if (cpus == 1) return 1;
  constexpr int64_t kLong = 100'000;  // nanoseconds
  constexpr double kSharing = 1.6;    // of two threads on a core each takes twice as long
  Claim claim(cpus);
  Attempt job{select_kernels().ceiling, 1, {0}};
  for (;; job.rounds *= 2) {
    attempt(&job, Worker{});
    if (job.taken[0] >= kLong) break;
  }
  const auto alone = static_cast<double>(usual(1, &job));
  const auto together = static_cast<double>(usual(cpus, &job));
  return together > kSharing * alone ? (cpus + 1) / 2 : cpus;
}

int32_t default_threads() {
  const Cores cores = physical_cores();
  if (cores.sure) return cores.count;
  static const int32_t measured = measure_cores(cores.count);
  return std::min(measured, cores.count);
}

double measure(Ceiling kind, int32_t threads) {
  if (threads < 1 || threads > 1024) {
    fail(EDGE_INVALID, "threads is %d, expected 1 to 1024", threads);
  }
  Job job{select_kernels().ceiling, nullptr, 0, 1, {}};
  Claim claim(threads);
  if (kind == Ceiling::read_bandwidth) {
    Reservation memory(kBytes, "measuring the bandwidth");
    job.data = memory.data();
    timed(threads, touch, &job);
    return static_cast<double>(kWindow) * 1e9 /
           static_cast<double>(best(threads, read, &job, 150'000'000));
  }
  if (kind != Ceiling::int8_rate) fail(EDGE_INVALID, "no ceiling %d", static_cast<int>(kind));
  while (timed(1, multiply, &job) < kAttempt) job.rounds *= 2;
  const int64_t taken = best(threads, multiply, &job, 100'000'000);
  return static_cast<double>(job.rounds * job.kernels.operations) * threads * 1e9 /
         static_cast<double>(taken);
}

}  // namespace edge
