#include "fold/fold.inl"
#include "simd/lanes_neon.h"

namespace edge {

const FoldKernels fold_neon = fold_kernels<neon::Lanes>();

}  // namespace edge
