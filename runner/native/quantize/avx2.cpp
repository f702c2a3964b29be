#include "quantize/quantize.inl"
#include "simd/lanes_avx2.h"

namespace edge {

const QuantizeKernels quantize_avx2 = {quantize_groups<avx2::Lanes>, quantize_int8<avx2::Lanes>};

}  // namespace edge
