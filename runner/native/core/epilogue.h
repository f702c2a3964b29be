// Epilogues for linear kernels that have none.
#pragma once

#include <cstdint>

#include "core/dispatch.h"

namespace edge {

// Bytes of products that a worker keeps in steps of up to `rows` rows.
uint64_t epilogue_bytes(int32_t rows);

// multiply(), then the epilogue, some panels at a time: their products go to `products`
// (epilogue_bytes(most_rows) of this worker), and from there into y before they leave the caches.
void multiply_then_finish(const Kernels& kernels, const LinearArgs& args, float* products,
                          int32_t most_rows, Worker worker);

}  // namespace edge
