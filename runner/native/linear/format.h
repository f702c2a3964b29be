// How a weight's numbers are stored: the core's side of program/formats.py, which says what each
// field means.
#pragma once

#include <cstdint>

namespace edge {

enum class Code : int32_t { f32, f16, bf16, i8, i4, u4 };
enum class ScaleType : int32_t { none, f32, f16, q8 };
enum class MinimumType : int32_t { none, f16, q8, zero };
enum class Layout : int32_t { panel, raw };

constexpr int32_t kSuper = 256;  // columns that share the fp16 factors of q8 scales and minima

struct WeightFormat {
  Code code = Code::f32;
  int32_t group = 0;  // columns that share a scale; 0: the whole row, or there is none
  ScaleType scale = ScaleType::none;
  MinimumType minimum = MinimumType::none;
  Layout layout = Layout::panel;
};

static inline bool operator==(const WeightFormat& a, const WeightFormat& b) {
  return a.code == b.code && a.group == b.group && a.scale == b.scale && a.minimum == b.minimum &&
         a.layout == b.layout;
}
static inline bool operator!=(const WeightFormat& a, const WeightFormat& b) { return !(a == b); }

}  // namespace edge
