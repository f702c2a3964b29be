// The experts operator, made of linear kernels.
//
// Rows are grouped by expert, so that a step reads each expert's weights once, and only those of
// experts that a row goes to. An expert's product with a row is that of a linear of its own, to the
// bit: a row's bytes depend on that row alone, and so does their sum, which is made by ascending
// expert in one chain of fused multiply-adds from 0.
#pragma once

#include <cstdint>

#include "core/dispatch.h"

namespace edge {

// Weights of all experts, one's rows below the other's, and what is added to their products; null:
// nothing. `gate` and `up` are of one format.
struct ExpertStacks {
  PackedWeight gate, up, down;
  const float *gate_bias = nullptr, *up_bias = nullptr, *down_bias = nullptr;
};

struct ExpertsArgs {
  ExpertStacks stacks;
  int32_t experts = 0, inner = 0;
  int32_t chosen = 0;                // experts of a row at most; others with a share are left out
  Epilogue activation{};             // silu_mul, gelu_mul or clamped_mul
  float alpha = 0.0f, limit = 0.0f;  // of the last
  Matrix x, y;                       // [rows, w]
  Matrix shares;                     // [rows, experts]
  int32_t most_rows = 0;             // of a step
  bool read_ahead = false;           // as edge_limits has it
  uint8_t* shared = nullptr;         // experts_bytes(), one for all workers
  uint8_t* own = nullptr;            // experts_own_bytes(), one for each worker
  float* products = nullptr;         // epilogue_bytes(most_rows), one for each worker
};

// Parts of the operator, each of which needs what all workers did in the one before.
constexpr int32_t kGather = 0;  // groups the rows, and quantizes (or copies) them by expert
constexpr int32_t kGate = 1;    // activation(x gate) * (x up)
constexpr int32_t kRound = 2;   // quantizes those
constexpr int32_t kDown = 3;    // the sums

// Bytes of scratch for steps of args.most_rows rows.
uint64_t experts_bytes(const LinearKernels& linear, const ExpertsArgs& args);
uint64_t experts_own_bytes(const ExpertsArgs& args);

// Does a worker's share of a part. `own` keeps what kGather left there.
void run_experts(const Kernels& kernels, const ExpertsArgs& args, int32_t part, Worker worker);

}  // namespace edge
