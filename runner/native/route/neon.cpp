#include "route/route.inl"
#include "simd/lanes_neon.h"

namespace edge {

const RouteKernels route_neon = {route<neon::Lanes>};

}  // namespace edge
