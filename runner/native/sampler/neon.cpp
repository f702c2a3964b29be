#include "sampler/sampler.inl"
#include "simd/lanes_neon.h"

namespace edge {

const SamplerKernels sampler_neon = sampler_kernels<neon::Lanes>();

}  // namespace edge
