// One loaded program: its memory, and how a step runs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/platform.h"
#include "core/pool.h"
#include "core/profile.h"
#include "core/program.h"

namespace edge {

class Executor {
 public:
  Executor(const edge_program& program, const edge_limits& limits);
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  void step(const edge_batch& batch);
  void copy_block(int32_t group, int32_t source, int32_t target);
  // The bytes of a block, of which there must be `count`.
  uint8_t* block(int32_t group, int32_t number, uint64_t count);
  void read_value(int32_t value, float* out, uint64_t count) const;

  // Records the next `steps` steps in place of what was recorded before; 0: records none.
  void profile(int32_t steps);
  // The phases of a step with or without wanted rows: writes as many as fit, returns how many there
  // are. The last one of a step with rows is copying out and sampling; it is run only if asked for.
  int32_t describe_phases(bool wanted, edge_phase* phases, int32_t capacity) const;
  void read_profile(int32_t step, edge_profile_step* summary, int64_t* stamps,
                    uint64_t count) const;

 private:
  uint64_t block_bytes(int32_t group) const;
  void check_batch(const edge_batch& batch);
  void check_hidden(const edge_batch& batch) const;
  void check_adapters(const edge_batch& batch) const;
  void check_positions(const edge_batch& batch);
  void check_blocks(const edge_batch& batch, int32_t sequence, int32_t first, int32_t last);
  void check_sampler(const edge_sampler& sampler, int32_t row) const;
  void work(Worker worker) const;
  void run_phase(const Op& op, int32_t part, Worker worker) const;
  void run_linear(const Op& op, int32_t part, Share rows, Worker worker) const;
  void prepare_rows(const Op& op, LinearArgs args, Share rows, float* normal) const;
  void run_attention(const Op& op, int32_t part, Share rows, Worker worker) const;
  void run_elementwise(const Op& op, Share rows, Share columns) const;
  void run_adapters(const Op& op, Share rows, Worker worker, Worker team) const;
  void run_adapter(const Op& op, int32_t adapter, Share rows, Worker worker, Worker team) const;
  const std::vector<Phase>& phases() const;  // of the running step
  Matrix step_logits() const;                // of the running step
  bool finishes() const;                     // it has rows to copy out or to sample
  void finish_rows(Worker worker) const;
  void copy_hidden(Worker worker) const;
  void sample_rows(Worker worker) const;

  int32_t row_count(Rows rows) const { return row_counts_[static_cast<int32_t>(rows)]; }
  int32_t most_rows() const { return std::max(limits_.max_tokens, limits_.max_rows); }
  const int32_t* positions(Rows rows) const {  // of the running step
    return rows == Rows::tokens ? batch_->positions : wanted_positions_.data();
  }
  const int32_t* sequences(Rows rows) const {  // of the running step
    return rows == Rows::tokens ? batch_->sequences : wanted_sequences_.data();
  }
  int32_t adapter_of(int32_t sequence) const {  // in the running step; -1: none
    return batch_->adapters == nullptr ? -1 : batch_->adapters[sequence];
  }
  Matrix matrix(const Place& place) const;
  Pages pages(const Op& op) const;  // of its state
  AttentionArgs attention_args(const Op& op) const;
  ConvArgs conv_args(const Op& op) const;
  ExpertsArgs experts_args(const Op& op, Worker worker) const;
  FoldArgs fold_args(const Op& op) const;

  const Kernels& kernels_;
  const Program program_;
  edge_limits limits_;
  const std::vector<int32_t> block_counts_;  // by group
  Reservation arenas_[2];                    // by Rows
  Reservation linear_scratch_;               // of all rows, or linear_stride_ bytes per worker
  uint64_t linear_stride_ = 0;
  Reservation row_scratch_;  // row_stride_ bytes per worker
  uint64_t row_bytes_ = 0;   // of them, for a normalized row; the rest is for that row quantized
  uint64_t row_stride_ = 0;
  Reservation epilogue_scratch_;
  Reservation attention_scratch_;
  Reservation experts_scratch_;      // of all workers
  Reservation experts_own_scratch_;  // experts_stride_ bytes per worker
  uint64_t experts_stride_ = 0;
  Reservation fold_scratch_;
  Reservation sampler_scratch_;  // sampler_stride_ bytes per worker
  uint64_t sampler_stride_ = 0;
  std::vector<Reservation> blocks_;  // by group
  std::vector<uint8_t> seen_;        // by sequence: it has tokens in this step
  std::vector<int32_t> wanted_positions_, wanted_sequences_;  // by wanted row
  // By group, uint64_t by block: the number of the step that wrote it last.
  std::vector<Reservation> written_;
  uint64_t step_ = 0;  // number of the step that is checked

  std::unique_ptr<Profile> profile_;   // null: off
  const edge_batch* batch_ = nullptr;  // of the running step
  int32_t row_counts_[2] = {0, 0};     // T and R of the last step
  Split split_ = Split::columns;       // of the running step
  bool adapted_ = false;               // some sequence of the running step has an adapter
};

}  // namespace edge
