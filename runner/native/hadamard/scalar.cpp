#include "hadamard/hadamard.inl"
#include "simd/lanes_scalar.h"

namespace edge {

const HadamardKernels hadamard_scalar = {hadamard<scalar::Lanes>};

}  // namespace edge
