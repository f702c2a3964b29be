// Generated from src/edge_llm/program/ops.py by tools/operators.py: change it there.
#pragma once

#include "core/rules.h"

namespace edge {

enum class OpCode : int32_t {
  embedding,
  linear,
  rms_norm,
  rope,
  attention,
  silu,
  gelu,
  mul,
  add,
  scale,
  split,
  select_rows,
  softcap,
  sigmoid,
  causal_conv,
  route,
  experts,
  decay,
  gated_delta,
  split_heads,
  scale_rows,
  time_step,
  state_space,
  attend,
  slice,
  rescale,
  layer_norm,
  grouped_norm,
  concat,
  previous,
  hadamard,
  adapter_gather,
  adapter_down,
  adapter_up,
  // what fusion makes of them:
  silu_mul,
  gelu_mul,
};
constexpr int32_t kOpCount = 34;  // of a program file

// X(name) for each operator that works element by element.
#define EDGE_ELEMENTWISE(X) X(silu) X(gelu) X(mul) X(add) X(scale) X(softcap) X(sigmoid)

// Places of sizes in a state of each kind.
constexpr size_t k_kv_heads = 0;
constexpr size_t k_kv_k_dim = 1;
constexpr size_t k_kv_v_dim = 2;
constexpr size_t k_fold_key_heads = 0;
constexpr size_t k_fold_heads = 1;
constexpr size_t k_fold_k_dim = 2;
constexpr size_t k_fold_v_dim = 3;
constexpr size_t k_rows_width = 0;

// Places of attributes among an instruction's ints or floats.
constexpr size_t k_rms_norm_size = 0;
constexpr size_t k_rms_norm_eps = 0;
constexpr size_t k_rope_heads = 0;
constexpr size_t k_rope_head_dim = 1;
constexpr size_t k_attention_heads = 0;
constexpr size_t k_attention_kv_heads = 1;
constexpr size_t k_attention_head_dim = 2;
constexpr size_t k_attention_bidirectional = 3;
constexpr size_t k_attention_scale = 0;
constexpr size_t k_attention_softcap = 1;
constexpr size_t k_scale_factor = 0;
constexpr size_t k_softcap_cap = 0;
constexpr size_t k_causal_conv_taps = 0;
constexpr size_t k_route_chosen = 0;
constexpr size_t k_route_scoring = 1;
constexpr size_t k_route_normalize = 2;
constexpr size_t k_route_eps = 0;
constexpr size_t k_route_scale = 1;
constexpr size_t k_route_threshold = 2;
constexpr size_t k_experts_experts = 0;
constexpr size_t k_experts_inner = 1;
constexpr size_t k_experts_chosen = 2;
constexpr size_t k_experts_activation = 3;
constexpr size_t k_experts_alpha = 0;
constexpr size_t k_experts_limit = 1;
constexpr size_t k_gated_delta_key_heads = 0;
constexpr size_t k_gated_delta_heads = 1;
constexpr size_t k_gated_delta_k_dim = 2;
constexpr size_t k_gated_delta_v_dim = 3;
constexpr size_t k_gated_delta_eps = 0;
constexpr size_t k_gated_delta_scale = 1;
constexpr size_t k_split_heads_heads = 0;
constexpr size_t k_time_step_low = 0;
constexpr size_t k_time_step_high = 1;
constexpr size_t k_state_space_key_heads = 0;
constexpr size_t k_state_space_heads = 1;
constexpr size_t k_state_space_k_dim = 2;
constexpr size_t k_state_space_v_dim = 3;
constexpr size_t k_attend_heads = 0;
constexpr size_t k_attend_kv_heads = 1;
constexpr size_t k_attend_head_dim = 2;
constexpr size_t k_attend_scale = 0;
constexpr size_t k_attend_softcap = 1;
constexpr size_t k_slice_count = 0;
constexpr size_t k_slice_size = 1;
constexpr size_t k_slice_index = 2;
constexpr size_t k_layer_norm_eps = 0;
constexpr size_t k_grouped_norm_size = 0;
constexpr size_t k_grouped_norm_eps = 0;
constexpr size_t k_adapter_gather_adapters = 0;
constexpr size_t k_adapter_gather_rank = 1;
constexpr size_t k_adapter_gather_height = 2;
constexpr size_t k_adapter_down_adapters = 0;
constexpr size_t k_adapter_down_rank = 1;
constexpr size_t k_adapter_up_adapters = 0;
constexpr size_t k_adapter_up_rank = 1;
constexpr size_t k_adapter_up_height = 2;

// clang-format off
// By kind; of kinds that cannot be run without sizes.
constexpr StateRules kStateRules[3] = {
    {"kv", 3, {1024, 512, 512}},
    {"fold", 4, {1024, 1024, 256, 256}},
    {"rows", 1, {4194304}},
};
constexpr OpRules kRules[kOpCount] = {
    {"embedding", false, false, false, -1, true,
     1, {{OperandKind::index, false, 0, {}, {}}},
     1, {{OperandKind::panel, false, 0, {1, 14, -1}, {1, 15, -1}}},
     {OperandKind::value, false, 0, {}, {1, 15, -1}},
     0, {},
     0, {}},
    {"linear", false, false, false, -1, true,
     1, {{OperandKind::value, false, 2, {}, {1, 14, -1}}},
     2, {{OperandKind::panel, false, 0, {1, 15, -1}, {1, 14, -1}}, {OperandKind::raw, true, 0, {1, 15, -1}, {1, -1, -1}}},
     {OperandKind::value, false, 2, {}, {1, 15, -1}},
     0, {},
     0, {}},
    {"rms_norm", false, false, true, -1, true,
     1, {{OperandKind::value, false, 2, {}, {1, 14, -1}}},
     1, {{OperandKind::raw, true, 0, {1, 0, -1}, {1, -1, -1}}},
     {OperandKind::value, false, 2, {}, {1, 14, -1}},
     1, {{1, 4194304}},
     1, {{{1, 0, -1}, Relation::divides, {1, 14, -1}}}},
    {"rope", false, false, true, -1, true,
     2, {{OperandKind::value, false, 2, {}, {1, 0, 1}}, {OperandKind::index, false, 1, {}, {}}},
     2, {{OperandKind::raw, false, 0, {1, 14, -1}, {1, 15, -1}}, {OperandKind::raw, false, 0, {1, 14, -1}, {1, 15, -1}}},
     {OperandKind::value, false, 2, {}, {1, 0, 1}},
     2, {{1, 1024}, {2, 512}},
     2, {{{1, 13, -1}, Relation::at_most, {1, 14, -1}}, {{2, 15, -1}, Relation::at_most, {1, 1, -1}}}},
    {"attention", false, false, true, 0, true,
     5, {{OperandKind::value, false, 0, {}, {1, 0, 2}}, {OperandKind::value, false, 0, {}, {1, 1, 2}}, {OperandKind::value, false, 0, {}, {1, 1, 2}}, {OperandKind::index, false, 1, {}, {}}, {OperandKind::index, false, 2, {}, {}}},
     1, {{OperandKind::raw, true, 0, {1, 0, -1}, {1, -1, -1}}},
     {OperandKind::value, false, 0, {}, {1, 0, 2}},
     4, {{1, 1024}, {1, 1024}, {1, 512}, {0, 1}},
     4, {{{1, 1, -1}, Relation::equal, {1, 8, -1}}, {{1, 2, -1}, Relation::equal, {1, 9, -1}}, {{1, 2, -1}, Relation::equal, {1, 10, -1}}, {{1, 1, -1}, Relation::divides, {1, 0, -1}}}},
    {"silu", false, true, true, -1, true,
     1, {{OperandKind::value, false, 2, {}, {1, 14, -1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 14, -1}},
     0, {},
     0, {}},
    {"gelu", false, true, true, -1, true,
     1, {{OperandKind::value, false, 2, {}, {1, 14, -1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 14, -1}},
     0, {},
     0, {}},
    {"mul", false, true, true, -1, true,
     2, {{OperandKind::value, false, 2, {}, {1, 14, -1}}, {OperandKind::value, false, 2, {}, {1, 14, -1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 14, -1}},
     0, {},
     0, {}},
    {"add", false, true, true, -1, true,
     2, {{OperandKind::value, false, 2, {}, {1, 14, -1}}, {OperandKind::value, false, 2, {}, {1, 14, -1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 14, -1}},
     0, {},
     0, {}},
    {"scale", false, true, true, -1, true,
     1, {{OperandKind::value, false, 2, {}, {1, 14, -1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 14, -1}},
     0, {},
     0, {}},
    {"split", true, false, false, -1, true,
     1, {{OperandKind::value, false, 2, {}, {1, 14, -1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 14, -1}},
     0, {},
     0, {}},
    {"select_rows", false, false, false, -1, true,
     2, {{OperandKind::value, false, 0, {}, {1, 14, -1}}, {OperandKind::index, false, 3, {}, {}}},
     0, {},
     {OperandKind::value, false, 1, {}, {1, 14, -1}},
     0, {},
     0, {}},
    {"softcap", false, true, true, -1, true,
     1, {{OperandKind::value, false, 2, {}, {1, 14, -1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 14, -1}},
     0, {},
     0, {}},
    {"sigmoid", false, true, true, -1, true,
     1, {{OperandKind::value, false, 2, {}, {1, 14, -1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 14, -1}},
     0, {},
     0, {}},
    {"causal_conv", false, false, true, 2, true,
     3, {{OperandKind::value, false, 0, {}, {1, 14, -1}}, {OperandKind::index, false, 1, {}, {}}, {OperandKind::index, false, 2, {}, {}}},
     2, {{OperandKind::raw, false, 0, {1, 14, -1}, {1, 0, -1}}, {OperandKind::raw, true, 0, {1, 14, -1}, {1, -1, -1}}},
     {OperandKind::value, false, 0, {}, {1, 14, -1}},
     1, {{1, 64}},
     2, {{{1, 14, -1}, Relation::equal, {1, 8, -1}}, {{1, 0, -1}, Relation::equal, {1, 12, -1}}}},
    {"route", false, false, false, -1, true,
     1, {{OperandKind::value, false, 2, {}, {1, 14, -1}}},
     2, {{OperandKind::raw, true, 0, {1, 14, -1}, {1, -1, -1}}, {OperandKind::raw, true, 0, {1, 14, -1}, {1, -1, -1}}},
     {OperandKind::value, false, 2, {}, {1, 14, -1}},
     3, {{1, 1024}, {0, 3}, {0, 1}},
     1, {{{1, 0, -1}, Relation::at_most, {1, 14, -1}}}},
    {"experts", false, false, false, -1, true,
     2, {{OperandKind::value, false, 2, {}, {1, 14, -1}}, {OperandKind::value, false, 2, {}, {1, 0, -1}}},
     6, {{OperandKind::panel, false, 0, {1, 0, 1}, {1, 14, -1}}, {OperandKind::panel, false, 0, {1, 0, 1}, {1, 14, -1}}, {OperandKind::panel, false, 0, {1, 0, 14}, {1, 1, -1}}, {OperandKind::raw, true, 0, {1, 0, -1}, {1, 1, -1}}, {OperandKind::raw, true, 0, {1, 0, -1}, {1, 1, -1}}, {OperandKind::raw, true, 0, {1, 0, -1}, {1, 14, -1}}},
     {OperandKind::value, false, 2, {}, {1, 14, -1}},
     4, {{1, 1024}, {1, 4194304}, {1, 1024}, {0, 2}},
     3, {{{1, 2, -1}, Relation::at_most, {1, 0, -1}}, {{16, -1, -1}, Relation::divides, {1, 1, -1}}, {{16, -1, -1}, Relation::divides, {1, 14, -1}}}},
    {"decay", false, false, true, -1, true,
     1, {{OperandKind::value, false, 2, {}, {1, 14, -1}}},
     2, {{OperandKind::raw, false, 0, {1, 14, -1}, {1, -1, -1}}, {OperandKind::raw, false, 0, {1, 14, -1}, {1, -1, -1}}},
     {OperandKind::value, false, 2, {}, {1, 14, -1}},
     0, {},
     0, {}},
    {"gated_delta", false, false, false, 1, true,
     7, {{OperandKind::value, false, 0, {}, {1, 0, 2}}, {OperandKind::value, false, 0, {}, {1, 0, 2}}, {OperandKind::value, false, 0, {}, {1, 1, 3}}, {OperandKind::value, false, 0, {}, {1, 1, -1}}, {OperandKind::value, false, 0, {}, {1, 1, -1}}, {OperandKind::index, false, 1, {}, {}}, {OperandKind::index, false, 2, {}, {}}},
     0, {},
     {OperandKind::value, false, 0, {}, {1, 1, 3}},
     4, {{1, 1024}, {1, 1024}, {1, 256}, {1, 256}},
     6, {{{1, 0, -1}, Relation::equal, {1, 8, -1}}, {{1, 1, -1}, Relation::equal, {1, 9, -1}}, {{1, 2, -1}, Relation::equal, {1, 10, -1}}, {{1, 3, -1}, Relation::equal, {1, 11, -1}}, {{1, 0, -1}, Relation::divides, {1, 1, -1}}, {{2, -1, -1}, Relation::equal, {1, 12, -1}}}},
    {"split_heads", true, false, false, -1, true,
     1, {{OperandKind::value, false, 2, {}, {1, 14, -1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 14, -1}},
     1, {{1, 1024}},
     1, {{{1, 0, -1}, Relation::divides, {1, 14, -1}}}},
    {"scale_rows", false, false, true, -1, true,
     2, {{OperandKind::value, false, 2, {}, {1, 14, -1}}, {OperandKind::value, false, 2, {}, {1, -1, -1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 14, -1}},
     0, {},
     0, {}},
    {"time_step", false, false, true, -1, true,
     1, {{OperandKind::value, false, 2, {}, {1, 14, -1}}},
     1, {{OperandKind::raw, false, 0, {1, 14, -1}, {1, -1, -1}}},
     {OperandKind::value, false, 2, {}, {1, 14, -1}},
     0, {},
     0, {}},
    {"state_space", false, false, false, 1, true,
     6, {{OperandKind::value, false, 0, {}, {1, 0, 2}}, {OperandKind::value, false, 0, {}, {1, 0, 2}}, {OperandKind::value, false, 0, {}, {1, 1, 3}}, {OperandKind::value, false, 0, {}, {1, 1, -1}}, {OperandKind::index, false, 1, {}, {}}, {OperandKind::index, false, 2, {}, {}}},
     2, {{OperandKind::raw, false, 0, {1, 1, -1}, {1, -1, -1}}, {OperandKind::raw, false, 0, {1, 1, -1}, {1, -1, -1}}},
     {OperandKind::value, false, 0, {}, {1, 1, 3}},
     4, {{1, 1024}, {1, 1024}, {1, 256}, {1, 256}},
     6, {{{1, 0, -1}, Relation::equal, {1, 8, -1}}, {{1, 1, -1}, Relation::equal, {1, 9, -1}}, {{1, 2, -1}, Relation::equal, {1, 10, -1}}, {{1, 3, -1}, Relation::equal, {1, 11, -1}}, {{1, 0, -1}, Relation::divides, {1, 1, -1}}, {{2, -1, -1}, Relation::equal, {1, 12, -1}}}},
    {"attend", false, false, true, 0, false,
     3, {{OperandKind::value, false, 2, {}, {1, 0, 2}}, {OperandKind::index, false, 1, {}, {}}, {OperandKind::index, false, 2, {}, {}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 0, 2}},
     3, {{1, 1024}, {1, 1024}, {1, 512}},
     4, {{{1, 1, -1}, Relation::equal, {1, 8, -1}}, {{1, 2, -1}, Relation::equal, {1, 9, -1}}, {{1, 2, -1}, Relation::equal, {1, 10, -1}}, {{1, 1, -1}, Relation::divides, {1, 0, -1}}}},
    {"slice", false, false, false, -1, true,
     1, {{OperandKind::value, false, 2, {}, {1, 0, 1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 1, -1}},
     3, {{1, 1024}, {1, 4194304}, {0, 1023}},
     1, {{{1, 2, -1}, Relation::less, {1, 0, -1}}}},
    {"rescale", false, false, true, -1, true,
     1, {{OperandKind::value, false, 2, {}, {1, 14, -1}}},
     1, {{OperandKind::raw, false, 0, {1, -1, -1}, {1, -1, -1}}},
     {OperandKind::value, false, 2, {}, {1, 14, -1}},
     0, {},
     0, {}},
    {"layer_norm", false, false, true, -1, true,
     1, {{OperandKind::value, false, 2, {}, {1, 14, -1}}},
     2, {{OperandKind::raw, false, 0, {1, 14, -1}, {1, -1, -1}}, {OperandKind::raw, true, 0, {1, 14, -1}, {1, -1, -1}}},
     {OperandKind::value, false, 2, {}, {1, 14, -1}},
     0, {},
     0, {}},
    {"grouped_norm", false, false, true, -1, true,
     1, {{OperandKind::value, false, 2, {}, {1, 14, -1}}},
     1, {{OperandKind::raw, false, 0, {1, 14, -1}, {1, -1, -1}}},
     {OperandKind::value, false, 2, {}, {1, 14, -1}},
     1, {{1, 4194304}},
     1, {{{1, 0, -1}, Relation::divides, {1, 14, -1}}}},
    {"concat", false, false, false, -1, true,
     2, {{OperandKind::value, false, 2, {}, {1, 14, -1}}, {OperandKind::value, false, 2, {}, {1, 14, -1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {2, 14, -1}},
     0, {},
     0, {}},
    {"previous", false, false, false, 2, true,
     3, {{OperandKind::value, false, 0, {}, {1, 14, -1}}, {OperandKind::index, false, 1, {}, {}}, {OperandKind::index, false, 2, {}, {}}},
     0, {},
     {OperandKind::value, false, 0, {}, {1, 14, -1}},
     0, {},
     2, {{{1, 14, -1}, Relation::equal, {1, 8, -1}}, {{2, -1, -1}, Relation::equal, {1, 12, -1}}}},
    {"hadamard", false, false, true, -1, true,
     1, {{OperandKind::value, false, 2, {}, {1, 14, -1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 14, -1}},
     0, {},
     2, {{{64, -1, -1}, Relation::divides, {1, 14, -1}}, {{1, 14, -1}, Relation::divides, {117440512, -1, -1}}}},
    {"adapter_gather", false, false, false, -1, true,
     2, {{OperandKind::index, false, 0, {}, {}}, {OperandKind::index, false, 2, {}, {}}},
     1, {{OperandKind::panel, false, 0, {1, 0, 2}, {1, 1, -1}}},
     {OperandKind::value, false, 0, {}, {1, 1, -1}},
     3, {{1, 64}, {16, 4096}, {16, 16777216}},
     2, {{{16, -1, -1}, Relation::divides, {1, 1, -1}}, {{16, -1, -1}, Relation::divides, {1, 2, -1}}}},
    {"adapter_down", false, false, false, -1, true,
     2, {{OperandKind::value, false, 2, {}, {1, 14, -1}}, {OperandKind::index, false, 2, {}, {}}},
     1, {{OperandKind::panel, false, 0, {1, 0, 1}, {1, 14, -1}}},
     {OperandKind::value, false, 2, {}, {1, 1, -1}},
     2, {{1, 64}, {16, 4096}},
     1, {{{16, -1, -1}, Relation::divides, {1, 1, -1}}}},
    {"adapter_up", false, false, true, -1, true,
     3, {{OperandKind::value, false, 2, {}, {1, 14, -1}}, {OperandKind::value, false, 2, {}, {1, 1, -1}}, {OperandKind::index, false, 2, {}, {}}},
     1, {{OperandKind::panel, false, 0, {1, 0, 2}, {1, 1, -1}}},
     {OperandKind::value, false, 2, {}, {1, 14, -1}},
     3, {{1, 64}, {16, 4096}, {16, 16777216}},
     3, {{{1, 14, -1}, Relation::at_most, {1, 2, -1}}, {{16, -1, -1}, Relation::divides, {1, 1, -1}}, {{16, -1, -1}, Relation::divides, {1, 2, -1}}}},
};
// clang-format on

}  // namespace edge
