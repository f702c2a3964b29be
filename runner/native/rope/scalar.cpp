#include "rope/rope.inl"
#include "simd/lanes_scalar.h"

namespace edge {

const RopeKernels rope_scalar = {rope<scalar::Lanes>};

}  // namespace edge
