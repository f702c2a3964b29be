#include "rope/rope.inl"
#include "simd/lanes_avx2.h"

namespace edge {

const RopeKernels rope_avx2 = {rope<avx2::Lanes>};

}  // namespace edge
