// Which kernels run: one table per instruction set, chosen by the processor or by EDGE_LLM_ISA.
#pragma once

#include "attention/attention.h"
#include "ceiling/ceiling.h"
#include "conv/conv.h"
#include "elementwise/elementwise.h"
#include "fold/fold.h"
#include "hadamard/hadamard.h"
#include "linear/linear.h"
#include "norm/norm.h"
#include "quantize/quantize.h"
#include "rope/rope.h"
#include "route/route.h"
#include "sampler/sampler.h"

namespace edge {

struct Kernels {
  const char* isa;
  const LinearKernels& linear;
  const AttentionKernels& attention;
  const ConvKernels& conv;
  const FoldKernels& fold;
  const HadamardKernels& hadamard;
  const NormKernels& norm;
  const RopeKernels& rope;
  const RouteKernels& route;
  const ElementwiseKernels& elementwise;
  const SamplerKernels& sampler;
  const CeilingKernels& ceiling;
  const QuantizeKernels& quantize;
};

// The best set that this processor runs, or the one that the environment variable EDGE_LLM_ISA
// names. Throws Error (EDGE_UNSUPPORTED) if that is unknown, or cannot run here.
const Kernels& select_kernels();

}  // namespace edge
