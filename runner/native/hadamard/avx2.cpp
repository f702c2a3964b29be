#include "hadamard/hadamard.inl"
#include "simd/lanes_avx2.h"

namespace edge {

const HadamardKernels hadamard_avx2 = {hadamard<avx2::Lanes>};

}  // namespace edge
