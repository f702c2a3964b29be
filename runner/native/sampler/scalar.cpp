#include "sampler/sampler.inl"
#include "simd/lanes_scalar.h"

namespace edge {

const SamplerKernels sampler_scalar = sampler_kernels<scalar::Lanes>();

}  // namespace edge
