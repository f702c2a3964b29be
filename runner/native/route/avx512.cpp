#include "route/route.inl"
#include "simd/lanes_avx512.h"

namespace edge {

const RouteKernels route_avx512 = {route<avx512::Lanes>};

}  // namespace edge
