#include "ceiling/ceiling.h"
#include "ceiling/neon_read.h"

namespace edge {

namespace {

#define EDGE_STEP(n) "smmla v" #n ".4s, %0.16b, %1.16b\n\t"

// Chains of smmla.
void multiply(int64_t rounds) {
  const int8x16_t weight = vdupq_n_s8(3), x = vdupq_n_s8(5);
  for (int64_t round = 0; round < rounds; ++round) {
    asm volatile(EDGE_STEP(2) EDGE_STEP(3) EDGE_STEP(4) EDGE_STEP(5) EDGE_STEP(6) EDGE_STEP(7)
                     EDGE_STEP(16) EDGE_STEP(17) EDGE_STEP(18) EDGE_STEP(19) EDGE_STEP(20)
                         EDGE_STEP(21) EDGE_STEP(22) EDGE_STEP(23) EDGE_STEP(24) EDGE_STEP(25)
                             EDGE_STEP(26) EDGE_STEP(27) EDGE_STEP(28) EDGE_STEP(29)
                 :
                 : "w"(weight), "w"(x)
                 : "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17", "v18", "v19", "v20", "v21",
                   "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29");
  }
}

#undef EDGE_STEP

}  // namespace

const CeilingKernels ceiling_neon_i8mm{neon_read, nullptr, multiply, 20 * 64};

}  // namespace edge
