#include "sampler/sampler.inl"
#include "simd/lanes_avx512.h"

namespace edge {

const SamplerKernels sampler_avx512 = sampler_kernels<avx512::Lanes>();

}  // namespace edge
