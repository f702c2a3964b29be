// This machine's ceilings, measured.
#pragma once

#include <cstdint>

namespace edge {

enum class Ceiling : int32_t { read_bandwidth, int8_rate };

// Bytes, or int8 multiplications plus additions, a second that `threads` threads reach together, at
// their best moment: about a quarter of a second for the bandwidth, of which most goes into making
// the memory that is read; a tenth for the rate. Throws Error.
double measure(Ceiling kind, int32_t threads);

// How many of `cpus` logical CPUs have a core of their own: half of them, if arithmetic in as many
// threads takes each of them much longer than alone, else all. Takes about 3 ms. Throws Error.
int32_t measure_cores(int32_t cpus);

// Threads that a model takes of its own accord: physical_cores(), measured, once in a process,
// where the system is not sure.
int32_t default_threads();

}  // namespace edge
