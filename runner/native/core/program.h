// A program as the executor runs it: instructions bound to buffers, cut into phases.
//
// Translation happens once, at load. Instructions are fused (fuse.h) and their values placed
// (place.h); none of this changes a bit of the results.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/dispatch.h"
#include "core/experts.h"
#include "core/generated/ops.h"
#include "edge_llm.h"

namespace edge {

constexpr int32_t kMaxContext = 1 << 24;

enum class Rows : int32_t { tokens, wanted };  // T or R

// The numbers of the graph contract's inputs.
constexpr int32_t kTokens = 0, kPositions = 1, kSequences = 2, kRows = 3, kInputCount = 4;

// The format of a weight. Throws Error (EDGE_INVALID) if there is no such format.
WeightFormat stored_format(const edge_weight& weight);

// Throws Error (EDGE_INVALID) if running the program could touch memory that is not its own.
void check_program(const edge_program& program);
// The part of it that the sizes of blocks depend on.
void check_states(const edge_program& program);

// Where a value lives: columns [column, column + width) of a buffer that has `stride` floats per
// row and starts at `offset` floats per row of its arena (there is one arena for T, one for R).
struct Place {
  Rows rows = Rows::tokens;
  int32_t width = 0;
  int32_t column = 0;
  int64_t stride = 0;
  int64_t offset = 0;
};

// Parts of the operators that have two.
constexpr int32_t kPrepare = 0, kMultiply = 1;  // linear, which may have the second alone
// Those with a state, which they read in the second: the one part of attend.
constexpr int32_t kWrite = 0, kRead = 1;

// Those of experts are in core/experts.h.

// The steps that run an operator. A draft is made in steps of its own; all others fill its states.
enum class Use : int32_t {
  always,      // of steps that make no draft
  for_hidden,  // of those that want hidden states
  fill,        // of all: a draft's states, and what leads to them
  write,       // of all, where no draft is made its first part alone: attention that fills a state
  draft,       // of those that make a draft
};

// Numbers of instructions of the source, by the part of an operator that does their work (or ends
// it). Operators of one part have the first alone.
using Parts = std::array<std::vector<int32_t>, 4>;

struct Op {
  OpCode code{};
  Parts instructions;
  Rows rows{};  // of the outputs
  int32_t input_count = 0, output_count = 0;
  std::array<Place, EDGE_MAX_INPUTS> inputs{};  // index inputs (tokens, rows, ...) stay empty
  std::array<Place, EDGE_MAX_OUTPUTS> outputs{};
  PackedWeight weight;  // linear, embedding
  std::array<const float*, 2>
      vectors{};                // bias; norm weight; cos and sin; of a route bias, factors
  int32_t table_cols = 0;       // rope
  ExpertStacks experts;         // experts
  const float* norm = nullptr;  // linear: rms_norm of whole rows of x comes first
  float eps = 0.0f;             // of that norm
  Use use = Use::always;
  bool keeps_draft = false;            // previous: the write of a draft's own hidden states alone
  Epilogue epilogue = Epilogue::none;  // linear, experts; add: its second input is the residual
  const uint8_t* up = nullptr;         // gated linear
  const float* up_bias = nullptr;      // gated linear
  const float* taps = nullptr;         // causal_conv: ConvArgs::weights
  bool prepared = false;               // linear: the one before has prepared the same rows
  int32_t state = -1;
  int32_t group = -1;           // of the state
  int32_t window = 0;           // of the state
  uint64_t state_offset = 0;    // of the state inside a block of its group
  KvState kv;                   // attention
  FoldState fold;               // gated_delta, state_space
  Rotation rotate_q, rotate_k;  // attention
  std::array<int32_t, EDGE_MAX_INTS> ints{};
  std::array<float, EDGE_MAX_FLOATS> floats{};
};

// Whether an operator writes its state and reads it at once, part by part.
inline bool folds(const Op& op) {
  return op.code == OpCode::gated_delta || op.code == OpCode::state_space;
}

// Whether an operator works on the rows of sequences with adapters alone.
inline bool adapts(OpCode code) {
  return code == OpCode::adapter_gather || code == OpCode::adapter_down ||
         code == OpCode::adapter_up;
}

// How the workers share operators over T rows. Operators over R rows, of which there are few, are
// always shared by columns, and attention by heads and tokens.
enum class Split : int32_t {
  columns,  // of outputs: each worker reads its part of the weights alone
  rows,     // each worker reads all weights, and next to nothing that another one wrote
  one_row,  // as columns; each worker prepares the row for itself, cheaper than a barrier
};

// What the workers do one after the other: part `part` of op `op`.
struct Phase {
  int32_t op;
  int32_t part;
  std::array<bool, 3> barrier;  // by Split: wait for the other workers first
  const char* work;             // what the part is, for people; "": all there is to do
};

// States that share a block table.
struct StateGroup {
  uint64_t block_bytes = 0;
  int32_t window = 0;  // positions that can be read again; 0: all
};

struct Program {
  int32_t context = 0, vocab = 0, sampleable = 0;
  int32_t embedding_rows = 0;   // token ids must be below this
  int32_t adapters = 0;         // of which a sequence may have one
  bool adapts_in_place = true;  // so that steps of no adapter need not run their operators
  std::vector<StateGroup> groups;
  std::vector<Place> values;  // by value number
  std::vector<Op> ops;
  // Of a step that wants rows, and of one that wants none; each without and with adapters, and
  // without and with hidden states.
  std::array<std::array<std::vector<Phase>, 2>, 2> phases, bare_phases;
  std::vector<Phase> draft_phases;       // of a step that makes a draft; empty: there is no draft
  std::vector<std::vector<float>> taps;  // of convolutions: ConvArgs::weights
  Place logits, draft_logits;
  Place hidden;                           // its stride is 0 if there is none
  std::array<int64_t, 2> arena_widths{};  // floats per row, by Rows
};

// The groups of the states; in a block they lie one after the other. Looks at nothing but them.
std::vector<StateGroup> state_groups(const edge_program& program, KvType type);

// Checks and translates. `trace` keeps every value in a buffer of its own, and fuses nothing.
Program translate(const edge_program& source, const Kernels& kernels, KvType type, bool trace);

}  // namespace edge
