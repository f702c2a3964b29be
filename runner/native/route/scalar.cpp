#include "route/route.inl"
#include "simd/lanes_scalar.h"

namespace edge {

const RouteKernels route_scalar = {route<scalar::Lanes>};

}  // namespace edge
