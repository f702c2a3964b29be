// This machine's ceilings, measured.
#pragma once

#include <cstdint>

namespace edge {

enum class Ceiling : int32_t { read_bandwidth, int8_rate };

// Bytes, or int8 multiplications plus additions, a second that `threads` threads reach together, at
// their best moment: about a quarter of a second for the bandwidth, of which most goes into making
// the memory that is read; a tenth for the rate. Throws Error.
double measure(Ceiling kind, int32_t threads);

}  // namespace edge
