// What the processor can do at best: the figures that kernels are held against. Nothing here is
// part of a step, and there is no numeric contract.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edge {

struct CeilingKernels {
  // Reads `bytes` bytes, a multiple of 256, from a 64-byte aligned address; what it returns depends
  // on all of them.
  uint64_t (*read)(const uint8_t* data, size_t bytes);
  uint64_t (*read_ahead)(const uint8_t* data, size_t bytes);  // with prefetches; may be null
  // `rounds` rounds of the cheapest exact int8 multiply-accumulate of the instruction set, in
  // registers, without a dependency between neighbours.
  void (*multiply)(int64_t rounds);
  int64_t operations;  // multiplications plus additions of a round
};

extern const CeilingKernels ceiling_scalar;
extern const CeilingKernels ceiling_avx2;
extern const CeilingKernels ceiling_avxvnni;
extern const CeilingKernels ceiling_avx512vnni;
extern const CeilingKernels ceiling_neon;
extern const CeilingKernels ceiling_neon_dotprod;
extern const CeilingKernels ceiling_neon_i8mm;

}  // namespace edge
