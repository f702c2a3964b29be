// From one row of logits to one token id. Order: raw log-probabilities; bias; penalties; mask;
// greedy, or temperature, top-k, min-p, top-p, then one draw. The draw is a pure function of
// (seed, counter), so it depends neither on the batch nor on preemption. Equal logits rank by id.
// With a target nothing is chosen: the target's log-probability is what is asked for.
#pragma once

#include "core/kernel.h"
#include "edge_llm.h"

namespace edge {

struct SamplerKernels {
  size_t (*scratch_bytes)(int32_t vocab);
  // `logits` [vocab] is not changed. `sampler` asks for a token and has been checked: its ids are
  // in [0, vocab). `scratch` belongs to this row alone while the call runs.
  void (*sample)(const float* logits, int32_t vocab, int32_t sampleable,
                 const edge_sampler& sampler, uint8_t* scratch, edge_sample* out);
};

extern const SamplerKernels sampler_scalar;
extern const SamplerKernels sampler_avx2;
extern const SamplerKernels sampler_avx512;
extern const SamplerKernels sampler_neon;

}  // namespace edge
