#include "rope/rope.inl"
#include "simd/lanes_neon.h"

namespace edge {

const RopeKernels rope_neon = {rope<neon::Lanes>};

}  // namespace edge
