// The core's one exception: thrown anywhere, turned into a status and a message at the C ABI.
#pragma once

#include <stdexcept>
#include <string>

#include "edge_llm.h"

namespace edge {

struct Error : std::runtime_error {
  Error(edge_status code, const std::string& message) : std::runtime_error(message), status(code) {}
  edge_status status;
};

// Throws Error with a printf-style message.
[[noreturn]] __attribute__((format(printf, 2, 3))) void fail(edge_status status, const char* format,
                                                             ...);

}  // namespace edge
