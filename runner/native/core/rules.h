// What the table of operators says about one of them, as check.cpp reads it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "edge_ops.h"

namespace edge {

enum class OperandKind : int32_t { value, index, panel, raw };

// constant * source a * source b; sources are, in this order: ints of the instruction, facts of the
// state and the plan, variables. -1: no such factor.
struct Product {
  int32_t constant = 1;
  int32_t a = -1, b = -1;
};
constexpr int32_t kFirstFact = EDGE_MAX_INTS;  // heads, k_dim, v_dim; context
constexpr int32_t kFirstVariable = kFirstFact + 4, kVariables = 4;

struct OperandRule {
  OperandKind kind = OperandKind::value;
  bool optional = false;
  int32_t rows = 0;  // value: 0: T, 1: R, 2: either; index: the number of the input
  Product n, k;      // sizes of a weight; k: the width of a value
};

enum class Relation : int32_t { equal, at_most, divides };

struct Requirement {
  Product left;
  Relation relation = Relation::equal;
  Product right;
};

struct Range {
  int32_t low = 0, high = 0;
};

struct OpRules {
  const char* name;
  bool splits;  // one or more outputs, whose widths add up to that of the input
  bool has_state, elementwise, in_place;
  int32_t input_count;
  OperandRule inputs[EDGE_MAX_INPUTS];
  int32_t weight_count;
  OperandRule weights[EDGE_MAX_WEIGHTS];
  OperandRule output;
  int32_t int_count;
  Range ints[EDGE_MAX_INTS];
  int32_t requirement_count;
  Requirement requirements[4];
};

}  // namespace edge
