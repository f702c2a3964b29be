#include "hadamard/hadamard.inl"
#include "simd/lanes_neon.h"

namespace edge {

const HadamardKernels hadamard_neon = {hadamard<neon::Lanes>};

}  // namespace edge
