#include "norm/norm.inl"
#include "simd/lanes_avx2.h"

namespace edge {

const NormKernels norm_avx2 = {rms_norm<avx2::Lanes>, layer_norm<avx2::Lanes>};

}  // namespace edge
