#include "route/route.inl"
#include "simd/lanes_avx2.h"

namespace edge {

const RouteKernels route_avx2 = {route<avx2::Lanes>};

}  // namespace edge
