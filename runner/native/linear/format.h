// How a weight's numbers are stored: the core's side of program/formats.py, which says what each
// field means.
#pragma once

#include <cstdint>

namespace edge {

enum class Code : int32_t { f32, f16, bf16, i8, i4, u4, e2m1, nl4, i5, u5, i6 };
enum class ScaleType : int32_t { none, f32, f16, q8, e8m0, s8 };
enum class MinimumType : int32_t { none, f16, q8, zero };
enum class Layout : int32_t { panel, raw };
// What shares a scale where rows of x become integers: a whole row, or kRun columns of it.
enum class Activations : int32_t { token, group };

// Columns that share the fp16 factors of q8 and s8 scales and of q8 minima.
constexpr int32_t kSuper = 256;
// Columns of x that share a scale under Activations::group.
constexpr int32_t kRun = 32;

struct WeightFormat {
  Code code = Code::f32;
  int32_t group = 0;  // columns that share a scale; 0: the whole row, or there is none
  ScaleType scale = ScaleType::none;
  MinimumType minimum = MinimumType::none;
  Layout layout = Layout::panel;
  Activations activations = Activations::token;  // of what it is multiplied with
};

static constexpr bool operator==(const WeightFormat& a, const WeightFormat& b) {
  return a.code == b.code && a.group == b.group && a.scale == b.scale && a.minimum == b.minimum &&
         a.layout == b.layout && a.activations == b.activations;
}
static constexpr bool operator!=(const WeightFormat& a, const WeightFormat& b) { return !(a == b); }

// Every format that the kernels take: WEIGHT_FORMATS of program/formats.py.
constexpr WeightFormat kFormats[] = {
    {Code::f32},
    {Code::f16},
    {Code::bf16},
    {Code::i8, 0, ScaleType::f32},
    {Code::i4, 32, ScaleType::f16},
    {Code::i4, 64, ScaleType::f16},
    {Code::i4, 128, ScaleType::f16},
    {Code::u4, 32, ScaleType::f16, MinimumType::f16},
    {Code::u4, 32, ScaleType::q8, MinimumType::q8},
    {Code::u4, 32, ScaleType::f16, MinimumType::zero},
    {Code::u4, 64, ScaleType::f16, MinimumType::zero},
    {Code::u4, 128, ScaleType::f16, MinimumType::zero},
    {Code::i8, 32, ScaleType::f16},
    {Code::e2m1, 32, ScaleType::e8m0},
    {Code::nl4, 32, ScaleType::f16},
    {Code::nl4, 32, ScaleType::s8},
    {Code::i5, 32, ScaleType::f16},
    {Code::u5, 32, ScaleType::f16, MinimumType::f16},
    {Code::u5, 32, ScaleType::q8, MinimumType::q8},
    {Code::i6, 16, ScaleType::s8},
    {Code::i6, 32, ScaleType::f16},
    {Code::f32, 0, ScaleType::none, MinimumType::none, Layout::raw},
};

// How the numbers are stored, whatever they are multiplied with.
static constexpr WeightFormat storage_of(WeightFormat format) {
  format.activations = Activations::token;
  return format;
}

static constexpr bool by_group(WeightFormat format) {
  return format.activations == Activations::group;
}

// Columns whose products are added up as integers before a scale multiplies them: where byte scales
// are integers too, they are multiplied first. 0: a whole row.
static constexpr int32_t summed_columns(WeightFormat format) {
  const bool whole = format.group == 0 || format.group > kRun;
  return by_group(format) && whole ? kRun : format.group;
}

static constexpr bool is_raw(WeightFormat format) { return format.layout == Layout::raw; }

// Whether rows of x become integers: those of float formats do not.
static constexpr bool is_quantized(WeightFormat format) { return format.code >= Code::i8; }

// Whether kSuper columns share a factor of their scales.
static constexpr bool has_factors(WeightFormat format) {
  return format.scale == ScaleType::q8 || format.scale == ScaleType::s8;
}

// Whether a minimum is added to its scaled codes.
static constexpr bool is_lifted(WeightFormat format) {
  return format.minimum == MinimumType::f16 || format.minimum == MinimumType::q8;
}

// Columns of which a matrix must have a multiple.
static constexpr int32_t column_multiple(WeightFormat format) {
  return has_factors(format) ? kSuper : format.group > 0 ? format.group : 1;
}

}  // namespace edge
