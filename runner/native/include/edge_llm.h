// The C ABI of the native core. Called through ctypes once per step; src/edge_llm/abi.py mirrors
// every struct. All pointers are borrowed for the duration of the call, except the data of weights,
// which must outlive the model. Every function returns an edge_status; edge_last_error()
// (thread-local) says what went wrong. Python has checked the plan (program/check.py); the core
// checks again only what would corrupt memory.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "edge_ops.h"

#if defined(_WIN32)
#define EDGE_API __declspec(dllexport)
#else
#define EDGE_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define EDGE_ABI_VERSION 22

typedef enum edge_status {
  EDGE_OK = 0,
  EDGE_INVALID = 1,  // an argument or the plan is wrong
  EDGE_OUT_OF_MEMORY = 2,
  EDGE_UNSUPPORTED = 3,  // this CPU or build cannot do what was asked
  EDGE_INTERNAL = 4
} edge_status;

// `op` is an edge_op. Slots that an operator does not use are -1 (indices) or 0.
typedef struct edge_instruction {
  int32_t op;
  int32_t input_count, output_count;
  int32_t inputs[EDGE_MAX_INPUTS];
  int32_t outputs[EDGE_MAX_OUTPUTS];
  int32_t weights[EDGE_MAX_WEIGHTS];
  int32_t states[EDGE_MAX_STATES];
  int32_t ints[EDGE_MAX_INTS];
  float floats[EDGE_MAX_FLOATS];
} edge_instruction;

typedef struct edge_value {
  int32_t rows;  // 0: T, 1: R
  int32_t width;
  int32_t dtype;  // 0: f32, 1: i32
} edge_value;

typedef struct edge_weight {
  // The fields of a format, program/formats.py: positions among their choices; group in columns.
  int32_t code, group, scale, minimum, layout;
  int32_t activations;  // how rows that it is multiplied with become integers: 0: token, 1: group
  int32_t n, k;         // logical shape; vectors have k = 1
  const void* data;     // 64-byte aligned
  uint64_t bytes;
} edge_weight;

// What one instruction remembers of every position of a sequence.
typedef struct edge_state {
  int32_t kind;                         // an edge_state_kind
  int32_t sizes[EDGE_MAX_STATE_SIZES];  // those of program/ops.py STATE_SIZES, then 0
  int32_t window;                       // positions that can be read again; 0: all
  int32_t group;  // states of a group share a block table: program/plan.py groups
} edge_state;

typedef struct edge_program {
  int32_t context, vocab;
  int32_t sampleable;  // token ids at and above this are never sampled
  int32_t output;      // value number of the logits
  int32_t hidden;      // value number of the hidden states, [T, width]; -1: it gives none
  // The first instruction of the draft, which is made in steps of its own (edge_batch.draft); -1:
  // there is none. Its `previous` reads `hidden`; what else it reads it computes itself. Value
  // numbers of its logits, and of its own hidden states [T, width], which a further token of a
  // draft goes on from.
  int32_t draft, draft_output, draft_hidden;
  int32_t value_count, weight_count, state_count, instruction_count;
  const edge_value* values;
  const edge_weight* weights;
  const edge_state* states;
  const edge_instruction* instructions;
} edge_program;

typedef struct edge_limits {
  int32_t max_tokens;     // T of a step
  int32_t max_rows;       // R of a step
  int32_t max_sequences;  // rows of a block table
  int32_t context;        // positions of a sequence; at most the program's
  int32_t kv_dtype;       // program/ops.py KV_DTYPES
  int32_t group_count;    // those of the program
  const int32_t* blocks;  // by group: blocks to reserve (address space; touched on first use)
  int32_t threads;
  int32_t trace;       // 1: keep every value of the last step readable (edge_read_value); no fusion
  int32_t read_ahead;  // 1: ask for the pages of chosen experts before they are read
} edge_limits;

// One wanted row's sampler. `history` is prompt then output ids; repetition_penalty looks at all of
// it, presence and frequency penalties at history[prompt_length:], DRY at its end (then it has at
// most `context` ids). `counter` is the number of tokens this sequence has sampled: the random
// numbers are a pure function of (seed, counter).
typedef struct edge_sampler {
  int32_t sample;                             // 0: logits only
  float temperature;                          // 0: greedy (lowest id wins a tie)
  int32_t top_k;                              // 0: off
  float top_p;                                // 1: off
  float min_p;                                // 0: off
  float repetition_penalty;                   // 1: off
  float presence_penalty, frequency_penalty;  // 0: off
  float typical_p;                            // 1: off
  float dry_multiplier;                       // 0: off
  float dry_base;                             // at least 1
  int32_t dry_allowed_length;
  int32_t dry_penalty_last_n;  // ids of the history's end; -1: all
  float xtc_probability;       // 0: off
  float xtc_threshold;
  int32_t top_logprobs;  // -1: none; 0..20: log-probabilities of the raw logits
  uint64_t seed, counter;
  const int32_t* history;
  int32_t history_length, prompt_length;
  const int32_t* bias_ids;
  const float* bias_values;
  int32_t bias_count;
  const uint32_t* breakers;  // bit i: DRY repeats nothing across id i; null: none; size as allowed
  const uint32_t* allowed;   // bit i: id i may be sampled; null: all; ceil(vocab / 32) words
  int32_t target;            // -1: sample; else the id to score: it comes back as if it was sampled
} edge_sampler;

#define EDGE_MAX_LOGPROBS 20

typedef struct edge_sample {
  int32_t id;      // -1: not sampled
  int32_t status;  // 0: fine, 1: non-finite logits, 2: the mask allows no id
  float logprob;   // of `id`, from the raw logits; only if top_logprobs >= 0
  int32_t top_count;
  int32_t top_ids[EDGE_MAX_LOGPROBS];
  float top_logprobs[EDGE_MAX_LOGPROBS];
} edge_sample;

typedef struct edge_batch {
  int32_t tokens_count;  // T
  int32_t rows_count;    // R
  int32_t sequence_count;
  int32_t block_stride;      // entries per row of a block table
  const int32_t* tokens;     // [T]
  const int32_t* positions;  // [T]
  const int32_t* sequences;  // [T], row of the block tables
  const int32_t* adapters;   // [sequence_count], -1: none; null: no sequence has one
  const int32_t* rows;       // [R], indices into the flat batch
  // [groups, sequence_count, block_stride] block ids; -1 where there is none: unused, or behind the
  // window of the group's states.
  const int32_t* block_tables;
  const edge_sampler* samplers;  // [R]
  edge_sample* samples;          // [R]
  float* logits;                 // null, or [R, vocab]
  // Tokens whose hidden states are wanted, apart from `rows`; only then are they computed.
  int32_t hidden_count;
  const int32_t* hidden_rows;  // [hidden_count], indices into the flat batch
  float* hidden;               // [hidden_count, width]
  // 1: the program's draft is computed in place of its language model: the logits after each token,
  // whose hidden states before it the states have, from a step of either kind. One token a
  // sequence.
  int32_t draft;
  // Workers that compute it, at most the threads of the limits; 0: all of them. Changes no bit.
  int32_t workers;
  // 1: workers that wait for others sleep at once; 0: they spin for some microseconds first, which
  // is faster and takes more power.
  int32_t patient;
} edge_batch;

#define EDGE_MAX_PHASE_INSTRUCTIONS 8

// What the workers do between two moments of a step.
typedef struct edge_phase {
  const char* work;  // which part of its instructions' work it is, for people; "": all of it
  int32_t
      barrier;  // 1: the workers wait for each other before it (if more than one row is computed)
  int32_t instruction_count;
  int32_t instructions[EDGE_MAX_PHASE_INSTRUCTIONS];  // of the program
} edge_phase;

// A recorded step. Times are nanoseconds of a clock that never goes back.
typedef struct edge_profile_step {
  int32_t tokens, rows;  // T and R
  int32_t threads, phases;
  int64_t begin, end;
} edge_profile_step;

#define EDGE_BPE_PROBES 64

// Tables that merge a text's units into tokens; docs/program-format.md. All ids are in [0, size),
// offsets ascend within texts, and both tables have more than EDGE_BPE_PROBES rows: Python has
// checked it.
typedef struct edge_bpe {
  int32_t unit_count;
  uint32_t merge_rows, word_rows;
  const int32_t* units;    // [unit_count] ids
  const int32_t* merges;   // [merge_rows, 4]
  const int32_t* words;    // [word_rows] ids; null: every word is merged
  const int32_t* offsets;  // [size + 1]
  const uint8_t* texts;
} edge_bpe;

typedef struct edge_model edge_model;

EDGE_API int32_t edge_abi_version(void);
EDGE_API const char* edge_last_error(void);
EDGE_API const char* edge_isa(
    void);  // "avx2", "scalar", ...: what runs here, after EDGE_LLM_ISA; null: error
// Threads that a model takes of its own accord: the physical cores that this process may use. Where
// the system cannot tell them from hyper-threads, the first call measures (about 3 ms).
EDGE_API int32_t edge_default_threads(void);
// That measurement: how many of `cpus` logical CPUs have a core of their own.
EDGE_API edge_status edge_measure_cores(int32_t cpus, int32_t* cores);
EDGE_API int32_t edge_block_size(void);  // positions of a block
// Bytes of one block of each group of this program: writes `count` of them, which must be the
// number of its groups.
EDGE_API edge_status edge_block_bytes(const edge_program* program, int32_t kv_dtype,
                                      uint64_t* bytes, int32_t count);
EDGE_API edge_status edge_load(const edge_program* program, const edge_limits* limits,
                               edge_model** model);
EDGE_API edge_status edge_step(edge_model* model, const edge_batch* batch);
EDGE_API edge_status edge_copy_block(edge_model* model, int32_t group, int32_t source,
                                     int32_t target);
// Copies a whole block of a group out of the model, or into it; `count` are its bytes, as
// edge_block_bytes says. What is written must have been read of a model of the same program.
EDGE_API edge_status edge_read_block(edge_model* model, int32_t group, int32_t block,
                                     uint8_t* bytes, uint64_t count);
EDGE_API edge_status edge_write_block(edge_model* model, int32_t group, int32_t block,
                                      const uint8_t* bytes, uint64_t count);
// Copies value `value` of the last step, [rows, width] without padding; needs limits.trace.
EDGE_API edge_status edge_read_value(edge_model* model, int32_t value, float* out, uint64_t count);
// Profiling: the next `steps` steps are recorded, in memory that is taken now; those after them are
// not. 0 ends it and frees what was recorded.
EDGE_API edge_status edge_profile_start(edge_model* model, int32_t steps);
// The phases of a step with or without wanted rows, in their order: writes at most `capacity`, and
// says in `count` how many there are. The last one of a step with rows is copying out and sampling.
EDGE_API edge_status edge_profile_phases(edge_model* model, int32_t rows_wanted, edge_phase* phases,
                                         int32_t capacity, int32_t* count);
// Step number `step` of those recorded. `stamps` is null, or [threads, phases, 2]: when each worker
// began and ended each phase.
EDGE_API edge_status edge_profile_read(edge_model* model, int32_t step, edge_profile_step* summary,
                                       int64_t* stamps, uint64_t count);
// What `threads` threads reach together on this machine, measured for about a quarter of a second.
// `ceiling` 0: bytes read from memory a second; 1: int8 multiplications plus additions a second,
// with the instruction set that edge_isa names.
EDGE_API edge_status edge_measure(int32_t ceiling, int32_t threads, double* rate);
EDGE_API void edge_free(edge_model* model);
// Merges `count` units, those with equal neighbours in `words` together, into `merged` tokens:
// `ids` and `ends` (one past a token's last unit) have room for `count`.
EDGE_API edge_status edge_bpe_merge(const edge_bpe* tables, const uint32_t* units,
                                    const uint32_t* words, uint64_t count, int32_t* ids,
                                    int32_t* ends, uint64_t* merged);
// Quantizes `n` rows of `k` finite floats, in the calling thread. `codes` [n, k]; `signal` and
// `noise` [n]: sums of squares of each row, and of what rounding changed it by. Of groups, `bits`
// are 4 or 6, `rule` 0 is affine, 1 signed, 2 hqq (quantize/quantize.h), `group` 32, 64 or 128,
// which divides `k`, `scales` [n, k / group], and `columns` [k] how much a squared error in each
// column counts (null: the same); EDGE_UNSUPPORTED where float16 cannot hold a scale. Of int8,
// `scales` [n].
EDGE_API edge_status edge_quantize_groups(const float* rows, int64_t n, int32_t k, int32_t bits,
                                          int32_t group, int32_t rule, const float* columns,
                                          int8_t* codes, float* scales, double* signal,
                                          double* noise);
EDGE_API edge_status edge_quantize_int8(const float* rows, int64_t n, int32_t k, int8_t* codes,
                                        float* scales, double* signal, double* noise);

#ifdef __cplusplus
}
#endif
