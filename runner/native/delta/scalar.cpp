#include "delta/delta.inl"
#include "simd/lanes_scalar.h"

namespace edge {

uint64_t fold_state_bytes(const FoldState& state) {
  return sizeof(float) * static_cast<uint64_t>(FoldLayout(state).size) *
         static_cast<uint64_t>(state.key_heads);
}

const DeltaKernels delta_scalar = delta_kernels<scalar::Lanes>();

}  // namespace edge
