#include "norm/norm.inl"
#include "simd/lanes_scalar.h"

namespace edge {

const NormKernels norm_scalar = {rms_norm<scalar::Lanes>, layer_norm<scalar::Lanes>};

}  // namespace edge
