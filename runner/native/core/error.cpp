#include "core/error.h"

#include <cstdarg>
#include <cstdio>

namespace edge {

void fail(edge_status status, const char* format, ...) {
  char message[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  throw Error(status, message);
}

}  // namespace edge
