// What the table of operators says about one of them, as check.cpp reads it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "edge_ops.h"

namespace edge {

enum class OperandKind : int32_t { value, index, panel, raw };

// constant * source a * source b; sources are, in this order: ints of the instruction, sizes of its
// state, facts, variables. -1: no such factor.
struct Product {
  int32_t constant = 1;
  int32_t a = -1, b = -1;
};
constexpr int32_t kFirstSize = EDGE_MAX_INTS;                      // of the state
constexpr int32_t kFirstFact = kFirstSize + EDGE_MAX_STATE_SIZES;  // window of the state; context
constexpr int32_t kFirstVariable = kFirstFact + 2, kVariables = 4;

struct OperandRule {
  OperandKind kind = OperandKind::value;
  bool optional = false;
  int32_t rows = 0;  // value: 0: T, 1: R, 2: either; index: the number of the input
  Product n, k;      // sizes of a weight; k: the width of a value
};

enum class Relation : int32_t { equal, at_most, less, divides };

struct Requirement {
  Product left;
  Relation relation = Relation::equal;
  Product right;
};

struct Range {
  int32_t low = 0, high = 0;
};

// A kind of states: the most of each of its sizes, of which the least is 1.
struct StateRules {
  const char* name;
  int32_t size_count;  // 0: nothing runs it
  int32_t most[EDGE_MAX_STATE_SIZES];
};

struct OpRules {
  const char* name;
  bool splits;  // one or more outputs, whose widths add up to that of the input
  bool elementwise, in_place;
  int32_t state;  // the kind that it uses; -1: none
  bool writes;    // that state
  int32_t input_count;
  OperandRule inputs[EDGE_MAX_INPUTS];
  int32_t weight_count;
  OperandRule weights[EDGE_MAX_WEIGHTS];
  OperandRule output;
  int32_t int_count;
  Range ints[EDGE_MAX_INTS];
  int32_t requirement_count;
  Requirement requirements[6];
};

}  // namespace edge
