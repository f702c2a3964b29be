#include "sampler/sampler.inl"
#include "simd/lanes_avx2.h"

namespace edge {

const SamplerKernels sampler_avx2 = sampler_kernels<avx2::Lanes>();

}  // namespace edge
