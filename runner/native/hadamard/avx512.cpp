#include "hadamard/hadamard.inl"
#include "simd/lanes_avx512.h"

namespace edge {

const HadamardKernels hadamard_avx512 = {hadamard<avx512::Lanes>};

}  // namespace edge
