#include "norm/norm.inl"
#include "simd/lanes_avx512.h"

namespace edge {

const NormKernels norm_avx512 = {rms_norm<avx512::Lanes>, layer_norm<avx512::Lanes>};

}  // namespace edge
