// What a step refuses: everything in a batch that would make a kernel touch foreign memory, or two
// workers one place.
#include <algorithm>

#include "core/error.h"
#include "core/executor.h"

namespace edge {

namespace {

void require_count(const char* name, int32_t count, int32_t low, int32_t high) {
  if (count < low || count > high) {
    fail(EDGE_INVALID, "batch: %s is %d, expected %d to %d", name, count, low, high);
  }
}

void require_pointer(const char* name, const void* pointer) {
  if (pointer == nullptr) fail(EDGE_INVALID, "batch: %s is null", name);
}

// `name`: what one of the `count` rows is.
void require_rows(const char* name, const int32_t* rows, int32_t count, int32_t tokens) {
  require_pointer("rows", rows);
  for (int32_t r = 0; r < count; ++r) {
    if (rows[r] < 0 || rows[r] >= tokens) {
      fail(EDGE_INVALID, "batch: %s %d is token %d, expected 0 to %d", name, r, rows[r],
           tokens - 1);
    }
  }
}

void require_ids(const char* name, const int32_t* ids, int32_t count, int32_t limit, int32_t row) {
  bool inside = true;  // no early exit: the loop stays vectorized
  for (int32_t i = 0; i < count; ++i)
    inside &= static_cast<uint32_t>(ids[i]) < static_cast<uint32_t>(limit);
  if (!inside)
    fail(EDGE_INVALID, "batch: %s of row %d holds an id outside 0..%d", name, row, limit - 1);
}

}  // namespace

void Executor::check_batch(const edge_batch& batch) {
  require_count("tokens_count", batch.tokens_count, 1, limits_.max_tokens);
  require_count("rows_count", batch.rows_count, 0, limits_.max_rows);
  require_count("workers", batch.workers, 0, limits_.threads);
  require_count("sequence_count", batch.sequence_count, 1, limits_.max_sequences);
  require_pointer("tokens", batch.tokens);
  require_pointer("positions", batch.positions);
  require_pointer("sequences", batch.sequences);
  for (int32_t t = 0; t < batch.tokens_count; ++t) {
    if (batch.tokens[t] < 0 || batch.tokens[t] >= program_.embedding_rows) {
      fail(EDGE_INVALID, "batch: token %d has id %d, expected 0 to %d", t, batch.tokens[t],
           program_.embedding_rows - 1);
    }
  }
  if (batch.draft != 0) {
    if (program_.draft_phases.empty()) {
      fail(EDGE_INVALID, "batch: a draft is wanted, which the program does not make");
    }
    require_count("rows_count of a draft", batch.rows_count, 1, limits_.max_rows);
  }
  check_positions(batch);
  check_hidden(batch);
  check_adapters(batch);
  if (batch.rows_count == 0) return;
  require_rows("row", batch.rows, batch.rows_count, batch.tokens_count);
  if (batch.samplers == nullptr) return;
  require_pointer("samples", batch.samples);
  for (int32_t r = 0; r < batch.rows_count; ++r) check_sampler(batch.samplers[r], r);
}

void Executor::check_hidden(const edge_batch& batch) const {
  require_count("hidden_count", batch.hidden_count, 0, batch.draft != 0 ? 0 : batch.tokens_count);
  if (batch.hidden_count == 0) return;
  if (program_.hidden.stride == 0) {
    fail(EDGE_INVALID, "batch: hidden states are wanted, which the program does not give");
  }
  require_pointer("hidden", batch.hidden);
  require_rows("hidden row", batch.hidden_rows, batch.hidden_count, batch.tokens_count);
}

void Executor::check_adapters(const edge_batch& batch) const {
  if (batch.adapters == nullptr) return;
  for (int32_t s = 0; s < batch.sequence_count; ++s) {
    if (batch.adapters[s] < -1 || batch.adapters[s] >= program_.adapters) {
      fail(EDGE_INVALID, "batch: sequence %d has adapter %d, expected -1 to %d", s,
           batch.adapters[s], program_.adapters - 1);
    }
  }
}

void Executor::check_positions(const edge_batch& batch) {
  if (!program_.groups.empty()) require_pointer("block_tables", batch.block_tables);
  std::fill(seen_.begin(), seen_.end(), uint8_t{0});
  ++step_;
  for (int32_t begin = 0, end; begin < batch.tokens_count; begin = end) {
    const int32_t sequence = batch.sequences[begin];
    const int32_t first = batch.positions[begin];
    if (sequence < 0 || sequence >= batch.sequence_count) {
      fail(EDGE_INVALID, "batch: token %d is of sequence %d, expected 0 to %d", begin, sequence,
           batch.sequence_count - 1);
    }
    if (seen_[static_cast<size_t>(sequence)]++ != 0) {
      fail(EDGE_INVALID, "batch: the tokens of sequence %d are not contiguous", sequence);
    }
    for (end = begin; end < batch.tokens_count && batch.sequences[end] == sequence; ++end) {
      const int32_t position = batch.positions[end];
      if (position < 0 || position >= limits_.context) {
        fail(EDGE_INVALID, "batch: token %d has position %d, expected 0 to %d", end, position,
             limits_.context - 1);
      }
      if (position != first + (end - begin)) {
        fail(EDGE_INVALID, "batch: the positions of sequence %d do not ascend by one at token %d",
             sequence, end);
      }
    }
    check_blocks(batch, sequence, first, batch.positions[end - 1]);
  }
}

// The blocks that positions `first` to `last` of a sequence write or read are there, and no other
// sequence writes them.
void Executor::check_blocks(const edge_batch& batch, int32_t sequence, int32_t first,
                            int32_t last) {
  if (program_.groups.empty()) return;
  const int32_t last_block = last / kBlockTokens;
  if (last_block >= batch.block_stride) {
    fail(EDGE_INVALID, "batch: sequence %d needs %d blocks, the block tables hold %d", sequence,
         last_block + 1, batch.block_stride);
  }
  const int32_t* table = batch.block_tables + int64_t{sequence} * batch.block_stride;
  for (size_t g = 0; g < program_.groups.size(); ++g) {
    const int32_t window = program_.groups[g].window, count = block_counts_[g];
    // Blocks that have slid out of the window may be gone.
    const int32_t oldest = window == 0 ? 0 : std::max(0, first - window + 1);
    auto* written = reinterpret_cast<uint64_t*>(written_[g].data());
    for (int32_t b = oldest / kBlockTokens; b <= last_block; ++b) {
      if (table[b] < 0 || table[b] >= count) {
        fail(EDGE_INVALID, "batch: block %d of sequence %d in group %d is %d, expected 0 to %d", b,
             sequence, static_cast<int32_t>(g), table[b], count - 1);
      }
      if (b < first / kBlockTokens) continue;  // only read, so others may share it
      if (written[table[b]] == step_) {
        fail(EDGE_INVALID,
             "batch: block %d of sequence %d in group %d is %d, which this step writes already", b,
             sequence, static_cast<int32_t>(g), table[b]);
      }
      written[table[b]] = step_;
    }
    table += int64_t{batch.sequence_count} * batch.block_stride;
  }
}

void Executor::check_sampler(const edge_sampler& sampler, int32_t row) const {
  if (sampler.sample == 0) return;
  if (sampler.top_logprobs < -1 || sampler.top_logprobs > EDGE_MAX_LOGPROBS) {
    fail(EDGE_INVALID, "batch: top_logprobs of row %d is %d, expected -1 to %d", row,
         sampler.top_logprobs, EDGE_MAX_LOGPROBS);
  }
  if (sampler.target < -1 || sampler.target >= program_.vocab) {
    fail(EDGE_INVALID, "batch: the target of row %d is %d, expected -1 to %d", row, sampler.target,
         program_.vocab - 1);
  }
  if (sampler.history_length < 0 || sampler.prompt_length < 0 || sampler.bias_count < 0 ||
      sampler.prompt_length > sampler.history_length) {
    fail(EDGE_INVALID, "batch: a length of row %d is out of range", row);
  }
  if (sampler.dry_multiplier > 0.0f &&
      (sampler.history_length > limits_.context || sampler.dry_allowed_length < 1)) {
    fail(EDGE_INVALID,
         "batch: DRY of row %d looks at %d ids and allows %d, expected at most %d and at least 1",
         row, sampler.history_length, sampler.dry_allowed_length, limits_.context);
  }
  if (sampler.history_length > 0) {
    require_pointer("history", sampler.history);
    require_ids("the history", sampler.history, sampler.history_length, program_.vocab, row);
  }
  if (sampler.bias_count > 0) {
    require_pointer("bias_ids", sampler.bias_ids);
    require_pointer("bias_values", sampler.bias_values);
    require_ids("the bias", sampler.bias_ids, sampler.bias_count, program_.vocab, row);
  }
}

}  // namespace edge
