#include "norm/norm.inl"
#include "simd/lanes_neon.h"

namespace edge {

const NormKernels norm_neon = {rms_norm<neon::Lanes>, layer_norm<neon::Lanes>};

}  // namespace edge
