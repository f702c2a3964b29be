#include "quantize/quantize.inl"
#include "simd/lanes_avx512.h"

namespace edge {

const QuantizeKernels quantize_avx512 = {quantize_groups<avx512::Lanes>,
                                         quantize_int8<avx512::Lanes>};

}  // namespace edge
