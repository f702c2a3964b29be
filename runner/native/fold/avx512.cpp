#include "fold/fold.inl"
#include "simd/lanes_avx512.h"

namespace edge {

const FoldKernels fold_avx512 = fold_kernels<avx512::Lanes>();

}  // namespace edge
