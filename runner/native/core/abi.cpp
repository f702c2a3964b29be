// The C ABI: exceptions end here, and become a status and a message of this thread.
#include <cstring>
#include <exception>
#include <new>
#include <string>

#include "bpe/bpe.h"
#include "core/dispatch.h"
#include "core/error.h"
#include "core/executor.h"
#include "core/measure.h"
#include "core/platform.h"
#include "edge_llm.h"

struct edge_model {
  edge::Executor executor;
};

namespace {

thread_local std::string last_error;

edge_status report(edge_status status, const char* message) noexcept {
  try {
    last_error = message;
  } catch (...) {
    last_error.clear();
  }
  return status;
}

template <typename Function>
edge_status guarded(Function function) noexcept {
  try {
    function();
    return EDGE_OK;
  } catch (const edge::Error& error) {
    return report(error.status, error.what());
  } catch (const std::bad_alloc&) {
    return report(EDGE_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    return report(EDGE_INTERNAL, error.what());
  } catch (...) {
    return report(EDGE_INTERNAL, "unknown error");
  }
}

template <typename... Pointers>
void require(Pointers... pointers) {
  if ((!pointers || ...)) edge::fail(EDGE_INVALID, "an argument is null");
}

}  // namespace

int32_t edge_abi_version(void) { return EDGE_ABI_VERSION; }

const char* edge_last_error(void) { return last_error.c_str(); }

const char* edge_isa(void) {
  const char* isa = nullptr;
  guarded([&] { isa = edge::select_kernels().isa; });
  return isa;
}

int32_t edge_default_threads(void) {
  int32_t threads = 1;
  guarded([&] { threads = edge::default_threads(); });
  return threads;
}

edge_status edge_measure_cores(int32_t cpus, int32_t* cores) {
  return guarded([&] {
    require(cores);
    *cores = edge::measure_cores(cpus);
  });
}

int32_t edge_block_size(void) { return edge::kBlockTokens; }

edge_status edge_block_bytes(const edge_program* program, int32_t kv_dtype, uint64_t* bytes,
                             int32_t count) {
  return guarded([&] {
    require(program, bytes);
    if (kv_dtype < 0 || kv_dtype > static_cast<int32_t>(edge::KvType::i8)) {
      edge::fail(EDGE_INVALID, "there is no KV type %d", kv_dtype);
    }
    const auto groups = edge::state_groups(*program, static_cast<edge::KvType>(kv_dtype));
    if (static_cast<size_t>(count) != groups.size()) {
      edge::fail(EDGE_INVALID, "the program has %d groups, not %d",
                 static_cast<int32_t>(groups.size()), count);
    }
    for (size_t g = 0; g < groups.size(); ++g) bytes[g] = groups[g].block_bytes;
  });
}

edge_status edge_load(const edge_program* program, const edge_limits* limits, edge_model** model) {
  return guarded([&] {
    require(program, limits, model);
    *model = new edge_model{{*program, *limits}};
  });
}

edge_status edge_step(edge_model* model, const edge_batch* batch) {
  return guarded([&] {
    require(model, batch);
    model->executor.step(*batch);
  });
}

edge_status edge_copy_block(edge_model* model, int32_t group, int32_t source, int32_t target) {
  return guarded([&] {
    require(model);
    model->executor.copy_block(group, source, target);
  });
}

edge_status edge_read_block(edge_model* model, int32_t group, int32_t block, uint8_t* bytes,
                            uint64_t count) {
  return guarded([&] {
    require(model, bytes);
    std::memcpy(bytes, model->executor.block(group, block, count), count);
  });
}

edge_status edge_write_block(edge_model* model, int32_t group, int32_t block, const uint8_t* bytes,
                             uint64_t count) {
  return guarded([&] {
    require(model, bytes);
    std::memcpy(model->executor.block(group, block, count), bytes, count);
  });
}

edge_status edge_read_value(edge_model* model, int32_t value, float* out, uint64_t count) {
  return guarded([&] {
    require(model, out);
    model->executor.read_value(value, out, count);
  });
}

edge_status edge_profile_start(edge_model* model, int32_t steps) {
  return guarded([&] {
    require(model);
    model->executor.profile(steps);
  });
}

edge_status edge_profile_phases(edge_model* model, int32_t rows_wanted, edge_phase* phases,
                                int32_t capacity, int32_t* count) {
  return guarded([&] {
    require(model, count);
    if (capacity > 0) require(phases);
    *count = model->executor.describe_phases(rows_wanted != 0, phases, capacity);
  });
}

edge_status edge_profile_read(edge_model* model, int32_t step, edge_profile_step* summary,
                              int64_t* stamps, uint64_t count) {
  return guarded([&] {
    require(model, summary);
    model->executor.read_profile(step, summary, stamps, count);
  });
}

edge_status edge_measure(int32_t ceiling, int32_t threads, double* rate) {
  return guarded([&] {
    require(rate);
    *rate = edge::measure(static_cast<edge::Ceiling>(ceiling), threads);
  });
}

void edge_free(edge_model* model) { delete model; }

edge_status edge_bpe_merge(const edge_bpe* tables, const uint32_t* units, const uint32_t* words,
                           uint64_t count, int32_t* ids, int32_t* ends, uint64_t* merged) {
  return guarded([&] {
    require(tables, merged);
    if (count > 0) require(units, words, ids, ends);
    *merged = edge::merge_words(*tables, units, words, count, ids, ends);
  });
}

edge_status edge_quantize_groups(const float* rows, int64_t n, int32_t k, int32_t bits,
                                 int32_t group, int32_t rule, const float* columns, int8_t* codes,
                                 float* scales, double* signal, double* noise) {
  return guarded([&] {
    require(rows, codes, scales, signal, noise);
    if (n < 0 || k < 1 || (bits != 4 && bits != 6) ||
        (group != 32 && group != 64 && group != 128) || k % group != 0 || rule < edge::kAffine ||
        rule > edge::kHqq) {
      edge::fail(EDGE_INVALID, "rows of %d to %d bits in groups of %d by rule %d", k, bits, group,
                 rule);
    }
    if (!edge::select_kernels().quantize.groups(rows, n, k, bits, group, rule, columns, codes,
                                                scales, signal, noise)) {
      edge::fail(EDGE_UNSUPPORTED, "an int%d scale overflows float16", bits);
    }
  });
}

edge_status edge_quantize_int8(const float* rows, int64_t n, int32_t k, int8_t* codes,
                               float* scales, double* signal, double* noise) {
  return guarded([&] {
    require(rows, codes, scales, signal, noise);
    if (n < 0 || k < 1) edge::fail(EDGE_INVALID, "int8 rows of %d", k);
    edge::select_kernels().quantize.int8(rows, n, k, codes, scales, signal, noise);
  });
}
