// Rewrites a plan's instructions before anything is placed: fewer passes over memory, fewer
// barriers, the same bits.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/program.h"

namespace edge {

// Weights with cos and sin of a rope; -1: none.
struct Tables {
  int32_t cos = -1, sin = -1;
};

// An instruction of the plan, or what fusion made of some.
struct Instruction {
  edge_instruction plain;  // where it differs from the plan's, as fused
  Parts instructions;      // of the plan, whose work this does
  int32_t first_row = 0;   // linear: of the weight's rows, as many as the output is wide
  int32_t up_row = -1;     // gated linear: the same of the factor that is not activated
  int32_t norm = -1;       // linear: weight of an rms_norm over whole rows of x that comes first
  float eps = 0.0f;        // of that norm
  bool draft = false;      // of the draft's
  Epilogue epilogue = Epilogue::none;  // linear; add: its second input is the residual
  std::array<Tables, 2> rotations;     // attention: of q and of k
};

// The plan's instructions as they are.
std::vector<Instruction> unfused(const edge_program& program);

// For a program that passed check_program():
//  - linear, split in two, silu or gelu of one part, mul by the other: one linear with two weights,
//    of whose products only the result is stored;
//  - linear, add: the sum is made before the product is stored;
//  - other silu or gelu that only a mul reads become part of the mul;
//  - rope of what only an attention reads, as its q or k: it rotates q as it reads it, and k as it
//    writes it to the cache;
//  - rms_norm that only linears with quantized activations read: each of them normalizes the rows
//    that it quantizes, and the normalized rows are never stored.
std::vector<Instruction> fuse(const edge_program& program, const Kernels& kernels);

}  // namespace edge
