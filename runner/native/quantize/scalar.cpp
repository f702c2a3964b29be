#include "quantize/quantize.inl"
#include "simd/lanes_scalar.h"

namespace edge {

const QuantizeKernels quantize_scalar = {quantize_int4<scalar::Lanes>,
                                         quantize_int8<scalar::Lanes>};

}  // namespace edge
