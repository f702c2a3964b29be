#include "ceiling/avx2_read.h"
#include "ceiling/ceiling.h"

namespace edge {

namespace {

// One asm block, since compilers put arrays of vectors into memory or hoist the products.
#define EDGE_STEP(n)               \
  "vpmaddubsw %1, %0, %%ymm15\n\t" \
  "vpaddw %%ymm15, %%ymm" #n ", %%ymm" #n "\n\t"

// Twelve chains of maddubs, added in 16 bits.
void multiply(int64_t rounds) {
  const __m256i weight = _mm256_set1_epi8(3), x = _mm256_set1_epi8(5);
  for (int64_t round = 0; round < rounds; ++round) {
    asm volatile(EDGE_STEP(2) EDGE_STEP(3) EDGE_STEP(4) EDGE_STEP(5) EDGE_STEP(6) EDGE_STEP(7)
                     EDGE_STEP(8) EDGE_STEP(9) EDGE_STEP(10) EDGE_STEP(11) EDGE_STEP(12)
                         EDGE_STEP(13)
                 :
                 : "x"(weight), "x"(x)
                 : "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                   "xmm12", "xmm13", "xmm15");
  }
}

#undef EDGE_STEP

}  // namespace

const CeilingKernels ceiling_avx2{avx2_read<false>, avx2_read<true>, multiply, 12 * 64};

}  // namespace edge
