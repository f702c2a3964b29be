// From one row of logits to one token id. Order: raw log-probabilities; bias; penalties; DRY; mask;
// greedy, or temperature, top-k, typicality, min-p, top-p, XTC, then one draw. The draw, and the
// coin that XTC throws, are pure functions of (seed, counter), so they depend neither on the batch
// nor on preemption. Equal logits rank by id. With a target nothing is chosen: the target's
// log-probability is what is asked for.
#pragma once

#include "core/kernel.h"
#include "edge_llm.h"

namespace edge {

struct SamplerKernels {
  // Of a row whose history has at most `context` ids.
  size_t (*scratch_bytes)(int32_t vocab, int32_t context);
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
