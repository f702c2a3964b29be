// What this machine can do at best: read bandwidth of a large array and int8 multiply-accumulates,
// with the given number of threads. Prints one JSON object. Compiled by benchmarks/ceilings.py.
#include <immintrin.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace {

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <typename Work>
double best_of(int threads, Work work) {
  double best = 1e9;
  for (int attempt = 0; attempt < 7; ++attempt) {
    std::vector<std::thread> team;
    double start = seconds();
    for (int t = 1; t < threads; ++t) team.emplace_back(work, t);
    work(0);
    for (std::thread& thread : team) thread.join();
    double taken = seconds() - start;
    if (taken < best) best = taken;
  }
  return best;
}

volatile int64_t sink;

}  // namespace

#define STEP(n)                    \
  "vpmaddubsw %1, %0, %%ymm15\n\t" \
  "vpaddw %%ymm15, %%ymm" #n ", %%ymm" #n "\n\t"

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;

  const size_t bytes = size_t{1} << 30;
  auto* data = static_cast<uint8_t*>(std::aligned_alloc(2 << 20, bytes));
  std::memset(data, 1, bytes);
  double read = best_of(threads, [&](int t) {
    const size_t share = bytes / threads / 256 * 256;
    const uint8_t* from = data + share * t;
    __m256i sum[8] = {};
    for (size_t i = 0; i < share; i += 256)
      for (int j = 0; j < 8; ++j)
        sum[j] = _mm256_xor_si256(
            sum[j], _mm256_load_si256(reinterpret_cast<const __m256i*>(from + i + 32 * j)));
    for (int j = 1; j < 8; ++j) sum[0] = _mm256_xor_si256(sum[0], sum[j]);
    sink = _mm256_extract_epi64(sum[0], 0);
  });

  // Twelve independent chains of maddubs + add in int16: the fastest exact int8 dot of AVX2. All in
  // one asm block, since compilers put arrays of vectors into memory or hoist the products.
  const int64_t rounds = 20'000'000;
  double int16 = best_of(threads, [&](int) {
    __m256i weight = _mm256_set1_epi8(3), input = _mm256_set1_epi8(5);
    for (int64_t i = 0; i < rounds; ++i)
      asm volatile(STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7)  //
                   STEP(8) STEP(9) STEP(10) STEP(11) STEP(12) STEP(13)
                   :
                   : "x"(weight), "x"(input)
                   : "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
                     "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
  });

  std::printf("{\"threads\": %d, \"read_gb_per_second\": %.1f, \"int8_gop_per_second\": %.0f}\n",
              threads, bytes / read / 1e9, 12 * 64.0 * rounds * threads / int16 / 1e9);
  std::free(data);
}
