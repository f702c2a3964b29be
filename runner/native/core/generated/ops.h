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
  // what fusion makes of them:
  silu_mul,
  gelu_mul,
};
constexpr int32_t kOpCount = 14;  // of a program file

// X(name) for each operator that works element by element.
#define EDGE_ELEMENTWISE(X) X(silu) X(gelu) X(mul) X(add) X(scale) X(softcap) X(sigmoid)

// Places of attributes among an instruction's ints or floats.
constexpr size_t k_rms_norm_size = 0;
constexpr size_t k_rms_norm_eps = 0;
constexpr size_t k_rope_heads = 0;
constexpr size_t k_rope_head_dim = 1;
constexpr size_t k_attention_heads = 0;
constexpr size_t k_attention_kv_heads = 1;
constexpr size_t k_attention_head_dim = 2;
constexpr size_t k_attention_scale = 0;
constexpr size_t k_attention_softcap = 1;
constexpr size_t k_scale_factor = 0;
constexpr size_t k_softcap_cap = 0;

// clang-format off
constexpr OpRules kRules[kOpCount] = {
    {"embedding", false, false, false, false,
     1, {{OperandKind::index, false, 0, {}, {}}},
     1, {{OperandKind::panel, false, 0, {1, 12, -1}, {1, 13, -1}}},
     {OperandKind::value, false, 0, {}, {1, 13, -1}},
     0, {},
     0, {}},
    {"linear", false, false, false, false,
     1, {{OperandKind::value, false, 2, {}, {1, 12, -1}}},
     2, {{OperandKind::panel, false, 0, {1, 13, -1}, {1, 12, -1}}, {OperandKind::raw, true, 0, {1, 13, -1}, {1, -1, -1}}},
     {OperandKind::value, false, 2, {}, {1, 13, -1}},
     0, {},
     0, {}},
    {"rms_norm", false, false, false, true,
     1, {{OperandKind::value, false, 2, {}, {1, 12, -1}}},
     1, {{OperandKind::raw, false, 0, {1, 0, -1}, {1, -1, -1}}},
     {OperandKind::value, false, 2, {}, {1, 12, -1}},
     1, {{1, 4194304}},
     1, {{{1, 0, -1}, Relation::divides, {1, 12, -1}}}},
    {"rope", false, false, false, true,
     2, {{OperandKind::value, false, 0, {}, {1, 0, 1}}, {OperandKind::index, false, 1, {}, {}}},
     2, {{OperandKind::raw, false, 0, {1, 12, -1}, {1, 13, -1}}, {OperandKind::raw, false, 0, {1, 12, -1}, {1, 13, -1}}},
     {OperandKind::value, false, 0, {}, {1, 0, 1}},
     2, {{1, 1024}, {2, 256}},
     2, {{{1, 11, -1}, Relation::at_most, {1, 12, -1}}, {{2, 13, -1}, Relation::at_most, {1, 1, -1}}}},
    {"attention", false, true, false, true,
     5, {{OperandKind::value, false, 0, {}, {1, 0, 2}}, {OperandKind::value, false, 0, {}, {1, 1, 2}}, {OperandKind::value, false, 0, {}, {1, 1, 2}}, {OperandKind::index, false, 1, {}, {}}, {OperandKind::index, false, 2, {}, {}}},
     0, {},
     {OperandKind::value, false, 0, {}, {1, 0, 2}},
     3, {{1, 1024}, {1, 1024}, {1, 256}},
     4, {{{1, 1, -1}, Relation::equal, {1, 8, -1}}, {{1, 2, -1}, Relation::equal, {1, 9, -1}}, {{1, 2, -1}, Relation::equal, {1, 10, -1}}, {{1, 1, -1}, Relation::divides, {1, 0, -1}}}},
    {"silu", false, false, true, true,
     1, {{OperandKind::value, false, 2, {}, {1, 12, -1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 12, -1}},
     0, {},
     0, {}},
    {"gelu", false, false, true, true,
     1, {{OperandKind::value, false, 2, {}, {1, 12, -1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 12, -1}},
     0, {},
     0, {}},
    {"mul", false, false, true, true,
     2, {{OperandKind::value, false, 2, {}, {1, 12, -1}}, {OperandKind::value, false, 2, {}, {1, 12, -1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 12, -1}},
     0, {},
     0, {}},
    {"add", false, false, true, true,
     2, {{OperandKind::value, false, 2, {}, {1, 12, -1}}, {OperandKind::value, false, 2, {}, {1, 12, -1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 12, -1}},
     0, {},
     0, {}},
    {"scale", false, false, true, true,
     1, {{OperandKind::value, false, 2, {}, {1, 12, -1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 12, -1}},
     0, {},
     0, {}},
    {"split", true, false, false, false,
     1, {{OperandKind::value, false, 2, {}, {1, 12, -1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 12, -1}},
     0, {},
     0, {}},
    {"select_rows", false, false, false, false,
     2, {{OperandKind::value, false, 0, {}, {1, 12, -1}}, {OperandKind::index, false, 3, {}, {}}},
     0, {},
     {OperandKind::value, false, 1, {}, {1, 12, -1}},
     0, {},
     0, {}},
    {"softcap", false, false, true, true,
     1, {{OperandKind::value, false, 2, {}, {1, 12, -1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 12, -1}},
     0, {},
     0, {}},
    {"sigmoid", false, false, true, true,
     1, {{OperandKind::value, false, 2, {}, {1, 12, -1}}},
     0, {},
     {OperandKind::value, false, 2, {}, {1, 12, -1}},
     0, {},
     0, {}},
};
// clang-format on

}  // namespace edge
