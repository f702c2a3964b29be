#include "fold/fold.inl"
#include "simd/lanes_scalar.h"

namespace edge {

uint64_t fold_state_bytes(const FoldState& state) {
  const FoldLayout layout(state);
  return sizeof(float) * static_cast<uint64_t>(layout.size) *
         static_cast<uint64_t>(state.key_heads * layout.split);
}

const FoldKernels fold_scalar = fold_kernels<scalar::Lanes>();

}  // namespace edge
