#include "quantize/quantize.inl"
#include "simd/lanes_scalar.h"

namespace edge {

const QuantizeKernels quantize_scalar = {quantize_groups<scalar::Lanes>,
                                         quantize_int8<scalar::Lanes>};

}  // namespace edge
