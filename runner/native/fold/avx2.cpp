#include "fold/fold.inl"
#include "simd/lanes_avx2.h"

namespace edge {

const FoldKernels fold_avx2 = fold_kernels<avx2::Lanes>();

}  // namespace edge
