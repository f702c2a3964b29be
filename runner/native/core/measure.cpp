#include "core/measure.h"

#include <algorithm>
#include <cstring>

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

class Claim {
 public:
  explicit Claim(int32_t threads) { Pool::instance().claim(threads); }
  ~Claim() { Pool::instance().release(); }
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;
};

}  // namespace

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
