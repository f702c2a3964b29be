#include "quantize/quantize.inl"
#include "simd/lanes_neon.h"

namespace edge {

const QuantizeKernels quantize_neon = {quantize_groups<neon::Lanes>, quantize_int8<neon::Lanes>};

}  // namespace edge
