// The portable linear kernels, and the oracle of the vector ones: plain loops over the 16 rows of a
// panel, with partial sums kept in y, whose rows are padded to 16.
#include <algorithm>

#include "linear/packed.h"

namespace edge {

uint64_t packed_bytes(WeightFormat format, int64_t n, int64_t k) {
  if (format == WeightFormat::raw_f32) return static_cast<uint64_t>(n * k * 4);
  return static_cast<uint64_t>(round_up(n, kLanes) / kLanes * panel_bytes(format, k));
}

namespace {

void quantize_row(const float* x, int32_t k, int64_t depth, int8_t* q, float* scale,
                  float* minus_zero) {
  float low = 0.0f, high = 0.0f;
  bool finite = true;
  for (int32_t i = 0; i < k; ++i) {
    finite &= std::isfinite(x[i]);
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
  }
  const RowScale row = row_scale(low, high, finite);
  *scale = row.scale;
  *minus_zero = static_cast<float>(-row.zero);
  std::fill(q, q + depth, int8_t{0});
  if (!row.finite) return;
  for (int32_t i = 0; i < k; ++i) {
    const long value = std::lrint(x[i] * row.inverse) + row.zero;
    q[i] = static_cast<int8_t>(std::clamp(value, -128L, 127L));
  }
}

void prepare(const LinearArgs& args, Share mine) {
  const QuantizedRows rows = quantized_rows(args.weight, args.x.rows, args.scratch);
  for (int64_t i = mine.begin; i < mine.end; ++i) {  // tiles of one row
    quantize_row(args.x.row(i), args.weight.k, rows.depth, rows.q + i * rows.depth, rows.scale + i,
                 rows.minus_zero + i);
  }
}

// Removes the zero point, scales, adds the bias.
void finish_quantized(const LinearArgs& args, const QuantizedRows& rows, int64_t panel) {
  const float* constants = row_constants(args.weight, panel);
  const int64_t first = panel * kLanes;
  const int64_t lanes = std::min<int64_t>(kLanes, args.weight.n - first);
  for (int32_t i = 0; i < args.x.rows; ++i) {
    float* y = args.y.row(i) + first;
    for (int64_t r = 0; r < lanes; ++r) {
      y[r] = rows.scale[i] * std::fma(rows.minus_zero[i], constants[r], y[r]);
      if (args.bias) y[r] += args.bias[first + r];
    }
  }
}

float load_half(const uint8_t* data) {
  Half half;
  std::memcpy(&half.bits, data, 2);
  return float_from_half(half);
}

int32_t dot(const int8_t* a, const int8_t* b, int64_t count) {
  int32_t sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

// w[row][k of the group] of one int4 group.
void unpack_int4_group(const uint8_t* data, int32_t group, int8_t (*w)[128]) {
  for (int32_t k = 0; k < group; ++k) {
    const uint8_t* block = data + k / kBlock * kInt4BlockBytes;
    const int32_t c = k % kBlock / 8, high = k % 8 / 4, i = k % 4;
    for (int32_t r = 0; r < kLanes; ++r) {
      const uint8_t pair = block[c * 64 + r * 4 + i];
      w[r][k] = static_cast<int8_t>((high ? pair >> 4 : pair & 15) - 8);
    }
  }
}

void multiply_int4(const LinearArgs& args, const QuantizedRows& rows, int64_t panel) {
  const int32_t group = group_of(args.weight.format);
  const uint8_t* data = panel_data(args.weight, panel);
  int8_t w[kLanes][128];
  for (int64_t k = 0; k < rows.depth; k += group) {
    unpack_int4_group(data, group, w);
    data += group / kBlock * kInt4BlockBytes;
    float scales[kLanes];
    for (int32_t r = 0; r < kLanes; ++r) scales[r] = load_half(data + 2 * r);
    data += kInt4ScaleBytes;
    for (int32_t i = 0; i < args.x.rows; ++i) {
      const int8_t* x = rows.q + i * rows.depth + k;
      float* y = args.y.row(i) + panel * kLanes;
      for (int32_t r = 0; r < kLanes; ++r) {
        const float sum = k == 0 ? 0.0f : y[r];
        y[r] = std::fma(scales[r], static_cast<float>(dot(w[r], x, group)), sum);
      }
    }
  }
}

void multiply_int8(const LinearArgs& args, const QuantizedRows& rows, int64_t panel) {
  const uint8_t* data = panel_data(args.weight, panel);
  const float* scales = reinterpret_cast<const float*>(data + rows.depth / 4 * kInt8WordBytes);
  for (int32_t i = 0; i < args.x.rows; ++i) {
    int32_t sums[kLanes] = {};
    const int8_t* w = reinterpret_cast<const int8_t*>(data);
    for (int64_t k = 0; k < rows.depth; k += 4, w += kInt8WordBytes) {
      const int8_t* x = rows.q + i * rows.depth + k;
      for (int32_t r = 0; r < kLanes; ++r) sums[r] += dot(w + 4 * r, x, 4);
    }
    float* y = args.y.row(i) + panel * kLanes;
    for (int32_t r = 0; r < kLanes; ++r) {
      y[r] = std::fma(scales[r], static_cast<float>(sums[r]), 0.0f);
    }
  }
}

float load_float(WeightFormat format, const uint8_t* data, int64_t index) {
  if (format == WeightFormat::f32) {
    float value;
    std::memcpy(&value, data + index * 4, 4);
    return value;
  }
  if (format == WeightFormat::f16) return load_half(data + index * 2);
  uint16_t bits;
  std::memcpy(&bits, data + index * 2, 2);
  return bits_float(static_cast<uint32_t>(bits) << 16);
}

void multiply_float(const LinearArgs& args, int64_t panel) {
  const uint8_t* data = panel_data(args.weight, panel);
  const int64_t first = panel * kLanes;
  const int64_t lanes = std::min<int64_t>(kLanes, args.weight.n - first);
  for (int32_t i = 0; i < args.x.rows; ++i) {
    std::fill(args.y.row(i) + first, args.y.row(i) + first + lanes, 0.0f);
  }
  for (int32_t k = 0; k < args.weight.k; ++k) {
    for (int64_t r = 0; r < lanes; ++r) {
      const float w = load_float(args.weight.format, data, k * int64_t{kLanes} + r);
      for (int32_t i = 0; i < args.x.rows; ++i) {
        float& y = args.y.row(i)[first + r];
        y = std::fma(w, args.x.row(i)[k], y);
      }
    }
  }
  if (!args.bias) return;
  for (int32_t i = 0; i < args.x.rows; ++i) {
    for (int64_t r = 0; r < lanes; ++r) args.y.row(i)[first + r] += args.bias[first + r];
  }
}

void multiply(const LinearArgs& args, Worker worker) {
  const Share panels = share(panel_count(args.weight), 1, worker);
  if (!is_quantized(args.weight.format)) {
    for (int64_t panel = panels.begin; panel < panels.end; ++panel) multiply_float(args, panel);
    return;
  }
  const QuantizedRows rows = quantized_rows(args.weight, args.x.rows, args.scratch);
  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    if (args.weight.format == WeightFormat::i8) {
      multiply_int8(args, rows, panel);
    } else {
      multiply_int4(args, rows, panel);
    }
    finish_quantized(args, rows, panel);
  }
}

void gather_int4(const uint8_t* data, int32_t group, int32_t lane, int32_t k, float* y) {
  for (int32_t begin = 0; begin < k; begin += group) {
    const uint8_t* scales = data + group / kBlock * kInt4BlockBytes;
    const float scale = load_half(scales + 2 * lane);
    for (int32_t j = 0; j < group; j += 8) {  // four bytes hold eight k of a row
      const uint8_t* pairs = data + j * 8 + lane * 4;
      for (int32_t i = 0; i < 4; ++i) {
        y[begin + j + i] = scale * static_cast<float>((pairs[i] & 15) - 8);
        y[begin + j + 4 + i] = scale * static_cast<float>((pairs[i] >> 4) - 8);
      }
    }
    data = scales + kInt4ScaleBytes;
  }
}

void gather_int8(const uint8_t* data, int32_t lane, int32_t k, float* y) {
  float scale;
  std::memcpy(&scale, data + round_up(k, kBlock) / 4 * kInt8WordBytes + lane * 4, 4);
  for (int32_t i = 0; i < k; ++i) {
    const auto q = static_cast<int8_t>(data[i / 4 * kInt8WordBytes + lane * 4 + i % 4]);
    y[i] = scale * static_cast<float>(q);
  }
}

}  // namespace

void gather_rows(const PackedWeight& table, const int32_t* ids, Matrix y, Worker worker) {
  const Share mine = share(y.rows, 1, worker);
  for (int64_t i = mine.begin; i < mine.end; ++i) {
    const uint8_t* data = panel_data(table, ids[i] / kLanes);
    const int32_t lane = ids[i] % kLanes;
    if (const int32_t group = group_of(table.format)) {
      gather_int4(data, group, lane, table.k, y.row(i));
    } else if (table.format == WeightFormat::i8) {
      gather_int8(data, lane, table.k, y.row(i));
    } else {
      for (int32_t k = 0; k < table.k; ++k) {
        y.row(i)[k] = load_float(table.format, data, k * int64_t{kLanes} + lane);
      }
    }
  }
}

const LinearKernels linear_scalar = {quantized_rows_bytes, prepare, multiply, finishes_none,
                                     gather_rows};

}  // namespace edge
