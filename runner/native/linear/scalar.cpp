// The portable linear kernels, and the oracle of the vector ones: plain loops over the 16 rows of a
// panel, with partial sums kept in y, whose rows are padded to 16.
#include <algorithm>

#include "linear/packed.h"

namespace edge {

uint64_t packed_bytes(WeightFormat format, int64_t n, int64_t k) {
  if (is_raw(format)) return static_cast<uint64_t>(n * k * 4);
  return static_cast<uint64_t>(round_up(n, kLanes) / kLanes * panel_bytes(format, k));
}

namespace {

void round_row(const float* x, int32_t k, const RowScale& row, int8_t* q) {
  if (!row.finite) return;
  for (int32_t i = 0; i < k; ++i) {
    const long value = std::lrint(x[i] * row.inverse) + row.zero;
    q[i] = static_cast<int8_t>(std::clamp(value, -128L, 127L));
  }
}

void quantize_row(const float* x, int32_t k, int8_t* q, float* scale, float* minus_zero) {
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
  round_row(x, k, row, q);
}

void quantize_runs(const float* x, int32_t k, int8_t* q, float* scales) {
  for (int32_t begin = 0; begin < k; begin += kRun) {
    const int32_t end = std::min(begin + kRun, k);
    float largest = 0.0f;
    bool finite = true;
    for (int32_t i = begin; i < end; ++i) {
      finite &= std::isfinite(x[i]);
      largest = std::fabs(x[i]) > largest ? std::fabs(x[i]) : largest;
    }
    const RowScale run = run_scale(largest, finite);
    scales[begin / kRun] = run.scale;
    round_row(x + begin, end - begin, run, q + begin);
  }
}

void prepare(const LinearArgs& args, Share mine) {
  const QuantizedRows rows = quantized_rows(args.weight, args.x.rows, args.scratch);
  for (int64_t i = mine.begin; i < mine.end; ++i) {  // tiles of one row
    const float* x = args.x.row(i);
    int8_t* q = rows.q + i * rows.strides.q;
    std::fill(q, q + rows.depth, int8_t{0});
    if (by_group(args.weight.format)) {
      quantize_runs(x, args.weight.k, q, rows.runs + i * rows.strides.runs);
      rows.scale[i] = 1.0f;
      rows.minus_zero[i] = 0.0f;
    } else {
      quantize_row(x, args.weight.k, q, rows.scale + i, rows.minus_zero + i);
    }
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

constexpr int32_t kMostGroups = kSuper / 16;  // of a frame

// A frame of a panel as numbers, [group][row]; see Frames. `factor` are those of scales and of
// minima.
struct Frame {
  int32_t groups;
  int8_t codes[kLanes][kSuper];  // [row][k]
  float scale[kMostGroups][kLanes], minimum[kMostGroups][kLanes];
  int32_t small_scale[kMostGroups][kLanes], small_minimum[kMostGroups][kLanes];
  float factor[2][kLanes];
};

// The code of a row at column k of the group whose codes are at `data`.
int32_t code_at(WeightFormat format, const uint8_t* data, int32_t k, int32_t row) {
  const int32_t bits = code_bits(format.code), step = k / 4, at = row * 4 + k % 4;
  if (bits == 8) return static_cast<int8_t>(data[step * 64 + at]);
  const uint8_t pair = data[step / 2 * 64 + at];
  int32_t field = step % 2 ? pair >> 4 : pair & 15;
  if (format.code == Code::e2m1) return kE2m1[field];
  if (format.code == Code::nl4) return kNl4[field];
  if (bits > 4) {
    const int32_t plane = data[plane_offset(format, step) + at];
    field |= (plane >> plane_shift(format.code, step) & ((1 << (bits - 4)) - 1)) << 4;
  }
  return field - code_offset(format.code);
}

// The scale whose exponent is a byte: 2^(byte - 128), infinity for 255.
float exponent_scale(uint8_t byte) {
  return 0.5f * bits_float(std::max(uint32_t{byte} << 23, kSmallestExponent));
}

void read_frame(WeightFormat format, const uint8_t* data, int32_t groups, Frame& frame) {
  const Frames frames = frames_of(format);
  frame.groups = groups;
  for (int32_t g = 0; g < groups; ++g) {
    const uint8_t* codes = data + frames.header + g * frames.group_bytes();
    const uint8_t* tail = codes + frames.codes;
    for (int32_t r = 0; r < kLanes; ++r) {
      for (int32_t k = 0; k < format.group; ++k) {
        frame.codes[r][g * format.group + k] = static_cast<int8_t>(code_at(format, codes, k, r));
      }
      if (has_factors(format)) frame.factor[0][r] = load_half(data + 2 * r);
      switch (format.scale) {
        case ScaleType::q8:
          frame.small_scale[g][r] = tail[r];
          frame.small_minimum[g][r] = tail[kLanes + r];
          frame.factor[1][r] = load_half(data + 2 * (kLanes + r));
          break;
        case ScaleType::s8:
          frame.small_scale[g][r] = static_cast<int8_t>(data[(2 + g) * kLanes + r]);
          break;
        case ScaleType::e8m0:
          frame.scale[g][r] = exponent_scale(data[g * kLanes + r]);
          break;
        default:
          frame.scale[g][r] = load_half(tail + 2 * r);
      }
      if (format.minimum == MinimumType::f16) {
        frame.minimum[g][r] = load_half(tail + 2 * (kLanes + r));
      } else if (format.minimum == MinimumType::zero) {
        frame.small_minimum[g][r] = data[g * kLanes + r];
      }
    }
  }
}

// Adds what a frame gives to the 16 outputs of one row of x. Integers are exact: a dot product of
// 32 codes is at most 32 * 127 * 128, times a signed byte and eight groups less than 2^30; of u4
// and u5 it is at most 32 * 31 * 128, times a byte and eight groups less than 2^28; the sums of x
// give less than 2^23.
void add_frame(WeightFormat format, const Frame& frame, const int8_t* x, float* y) {
  const int32_t group = format.group;
  int32_t sums[kMostGroups] = {};
  for (int32_t k = 0; k < frame.groups * group; ++k) sums[k / group] += x[k];
  for (int32_t r = 0; r < kLanes; ++r) {
    int32_t scaled = 0, lifted = 0;
    for (int32_t g = 0; g < frame.groups; ++g) {
      int32_t product = dot(frame.codes[r] + g * group, x + g * group, group);
      if (has_factors(format)) {
        scaled += frame.small_scale[g][r] * product;
        if (format.minimum == MinimumType::q8) lifted += frame.small_minimum[g][r] * sums[g];
        continue;
      }
      if (format.minimum == MinimumType::zero) product -= frame.small_minimum[g][r] * sums[g];
      y[r] = std::fma(frame.scale[g][r], static_cast<float>(product), y[r]);
      if (format.minimum == MinimumType::f16) {
        y[r] = std::fma(frame.minimum[g][r], static_cast<float>(sums[g]), y[r]);
      }
    }
    if (!has_factors(format)) continue;
    y[r] = std::fma(frame.factor[0][r], static_cast<float>(scaled), y[r]);
    if (format.minimum == MinimumType::q8) {
      y[r] = std::fma(-frame.factor[1][r], static_cast<float>(lifted), y[r]);
    }
  }
}

// The same for a row by group, whose scales are `runs`.
void add_runs(WeightFormat format, const Frame& frame, const int8_t* x, const float* runs,
              float* y) {
  const int32_t columns = summed_columns(format);
  for (int32_t k = 0; k < frame.groups * format.group; k += columns) {
    const int32_t g = k / format.group;
    int32_t sum = 0;
    for (int32_t i = k; i < k + columns; ++i) sum += x[i];
    for (int32_t r = 0; r < kLanes; ++r) {
      int32_t product = dot(frame.codes[r] + k, x + k, columns);
      float scale = frame.scale[g][r], minimum = frame.minimum[g][r];
      if (format.minimum == MinimumType::zero) product -= frame.small_minimum[g][r] * sum;
      if (has_factors(format)) {
        scale = frame.factor[0][r] * static_cast<float>(frame.small_scale[g][r]);
        minimum = -frame.factor[1][r] * static_cast<float>(frame.small_minimum[g][r]);
      }
      const float nothing = std::fma(scale, 0.0f, 0.0f);  // NaN beside an infinity
      float part = std::fma(scale, static_cast<float>(product), nothing);
      if (is_lifted(format)) part = std::fma(minimum, static_cast<float>(sum), part);
      y[r] = std::fma(runs[k / kRun], part, y[r]);
    }
  }
}

void multiply_groups(const LinearArgs& args, const QuantizedRows& rows, int64_t panel) {
  const WeightFormat format = args.weight.format;
  const Frames frames = frames_of(format);
  const int64_t groups = rows.depth / format.group;
  const uint8_t* data = panel_data(args.weight, panel);
  for (int32_t i = 0; i < args.x.rows; ++i) {
    std::fill_n(args.y.row(i) + panel * kLanes, kLanes, 0.0f);
  }
  Frame frame;
  for (int64_t g = 0; g < groups; g += frames.together) {
    const auto count = static_cast<int32_t>(std::min<int64_t>(frames.together, groups - g));
    read_frame(format, data, count, frame);
    data += frames.bytes(count);
    for (int32_t i = 0; i < args.x.rows; ++i) {
      const int64_t k = g * format.group;
      const int8_t* x = rows.q + i * rows.strides.q + k;
      float* y = args.y.row(i) + panel * kLanes;
      if (by_group(format)) {
        add_runs(format, frame, x, rows.runs + i * rows.strides.runs + k / kRun, y);
      } else {
        add_frame(format, frame, x, y);
      }
    }
  }
}

void multiply_int8(const LinearArgs& args, const QuantizedRows& rows, int64_t panel) {
  const uint8_t* data = panel_data(args.weight, panel);
  const float* scales = reinterpret_cast<const float*>(data + rows.depth / 4 * kInt8WordBytes);
  const bool grouped = by_group(args.weight.format);
  const int64_t columns = grouped ? kRun : rows.depth;
  for (int32_t i = 0; i < args.x.rows; ++i) {
    float totals[kLanes] = {};
    const int8_t* w = reinterpret_cast<const int8_t*>(data);
    for (int64_t begin = 0; begin < rows.depth; begin += columns) {
      int32_t sums[kLanes] = {};
      for (int64_t k = begin; k < begin + columns; k += 4, w += kInt8WordBytes) {
        const int8_t* x = rows.q + i * rows.strides.q + k;
        for (int32_t r = 0; r < kLanes; ++r) sums[r] += dot(w + 4 * r, x, 4);
      }
      const float run = grouped ? rows.runs[i * rows.strides.runs + begin / kRun] : 1.0f;
      for (int32_t r = 0; r < kLanes; ++r) {
        totals[r] = std::fma(run, static_cast<float>(sums[r]), totals[r]);
      }
    }
    float* y = args.y.row(i) + panel * kLanes;
    for (int32_t r = 0; r < kLanes; ++r) y[r] = std::fma(scales[r], totals[r], 0.0f);
  }
}

float load_float(Code code, const uint8_t* data, int64_t index) {
  if (code == Code::f32) {
    float value;
    std::memcpy(&value, data + index * 4, 4);
    return value;
  }
  if (code == Code::f16) return load_half(data + index * 2);
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
      const float w = load_float(args.weight.format.code, data, k * int64_t{kLanes} + r);
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
    if (args.weight.format.group == 0) {
      multiply_int8(args, rows, panel);
    } else {
      multiply_groups(args, rows, panel);
    }
    finish_quantized(args, rows, panel);
  }
}

// One row of a table in groups. A value is rounded once: products of a scale are exact in float32.
void gather_groups(WeightFormat format, const uint8_t* data, int32_t lane, int32_t k, float* y) {
  const Frames frames = frames_of(format);
  for (int32_t g = 0; g < k / format.group; ++g) {
    const uint8_t* header = data + frames.bytes(g / frames.together * frames.together);
    const int32_t inside = g % frames.together;
    const uint8_t* codes = header + frames.header + inside * frames.group_bytes();
    const uint8_t* tail = codes + frames.codes;
    float scale = 0.0f, minimum = 0.0f;
    switch (format.scale) {
      case ScaleType::q8:
        scale = load_half(header + 2 * lane) * static_cast<float>(tail[lane]);
        minimum =
            -load_half(header + 2 * (kLanes + lane)) * static_cast<float>(tail[kLanes + lane]);
        break;
      case ScaleType::s8:
        scale = load_half(header + 2 * lane) *
                static_cast<float>(static_cast<int8_t>(header[(2 + inside) * kLanes + lane]));
        break;
      case ScaleType::e8m0:
        scale = exponent_scale(header[inside * kLanes + lane]);
        break;
      default:
        scale = load_half(tail + 2 * lane);
    }
    int32_t zero = 0;
    if (format.minimum == MinimumType::f16) {
      minimum = load_half(tail + 2 * (kLanes + lane));
    } else if (format.minimum == MinimumType::zero) {
      zero = header[inside * kLanes + lane];
    }
    for (int32_t j = 0; j < format.group; ++j) {
      const float value = scale * static_cast<float>(code_at(format, codes, j, lane) - zero);
      y[g * format.group + j] = is_lifted(format) ? value + minimum : value;
    }
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
    if (table.format.group) {
      gather_groups(table.format, data, lane, table.k, y.row(i));
    } else if (table.format.code == Code::i8) {
      gather_int8(data, lane, table.k, y.row(i));
    } else {
      for (int32_t k = 0; k < table.k; ++k) {
        y.row(i)[k] = load_float(table.format.code, data, k * int64_t{kLanes} + lane);
      }
    }
  }
}

const LinearKernels linear_scalar = {quantized_rows_bytes, prepare, multiply, finishes_none,
                                     gather_rows};

}  // namespace edge
