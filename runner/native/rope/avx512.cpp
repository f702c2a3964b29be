#include "rope/rope.inl"
#include "simd/lanes_avx512.h"

namespace edge {

const RopeKernels rope_avx512 = {rope<avx512::Lanes>};

}  // namespace edge
