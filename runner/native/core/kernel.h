// What every operator kernel shares: matrix views and the worker's share.
//
// Helpers are `static`, since files built for different instruction sets include this: of a shared
// inline symbol the linker could hand the AVX2 copy to a processor without it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edge {

// Row-major float32 matrix view. Rows start 64-byte aligned and are padded to 16 floats; what lies
// in the padding is unspecified, so kernels may write it but never let it reach a result.
struct Matrix {
  float* data = nullptr;
  int64_t stride = 0;  // floats between rows
  int32_t rows = 0;
  int32_t cols = 0;
  float* row(int64_t i) const { return data + i * stride; }
};

// One thread's place in the team that runs an operator together. Work is split by output, so that
// no reduction crosses workers and no result depends on `count`.
struct Worker {
  int32_t index = 0;
  int32_t count = 1;
};

// The half-open share [begin, end) of `total` items that `worker` takes, in multiples of `unit`.
struct Share {
  int64_t begin, end;
};
static inline Share share(int64_t total, int64_t unit, Worker worker) {
  int64_t units = (total + unit - 1) / unit;
  int64_t begin = units * worker.index / worker.count * unit;
  int64_t end = units * (worker.index + 1) / worker.count * unit;
  return {begin, end < total ? end : total};
}

static inline int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

constexpr int32_t kLanes = 16;        // virtual float lanes of every reduction
constexpr int32_t kBlockTokens = 64;  // tokens of a block of the states, and of attention

// Where a state keeps what it remembers of the tokens of a step, and of those before them.
struct Pages {
  const int32_t* positions = nullptr;    // [T]
  const int32_t* sequences = nullptr;    // [T]
  const int32_t* block_table = nullptr;  // [.., block_stride]
  int32_t block_stride = 0;
  uint8_t* blocks = nullptr;  // block b starts at blocks + b * block_bytes
  uint64_t block_bytes = 0;
  uint64_t offset = 0;  // of this state inside a block

  // The state's part of block number `block` of a sequence.
  uint8_t* part(int32_t sequence, int32_t block) const {
    const int64_t id = block_table[int64_t{sequence} * block_stride + block];
    return blocks + static_cast<uint64_t>(id) * block_bytes + offset;
  }
};

}  // namespace edge
