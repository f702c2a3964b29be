// clang-format off: each part uses those before it
#include "linear/neon_integer.inl"
#include "linear/neon_dotprod.inl"
// clang-format on

namespace edge {

const LinearKernels linear_neon_dotprod = linear_kernels<DotSums>();

}  // namespace edge
