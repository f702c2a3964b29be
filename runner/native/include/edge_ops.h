// Generated from src/edge_llm/program/ops.py by tools/operators.py: change it there.
#pragma once

#define EDGE_MAX_INPUTS 8
#define EDGE_MAX_OUTPUTS 4
#define EDGE_MAX_WEIGHTS 6
#define EDGE_MAX_STATES 2
#define EDGE_MAX_INTS 8
#define EDGE_MAX_FLOATS 4
#define EDGE_MAX_STATE_SIZES 4
#define EDGE_MAX_TAPS 64

typedef enum edge_state_kind {
  EDGE_STATE_KV = 0,
  EDGE_STATE_FOLD = 1,
  EDGE_STATE_ROWS = 2,
} edge_state_kind;

typedef enum edge_op {
  EDGE_OP_EMBEDDING = 0,
  EDGE_OP_LINEAR = 1,
  EDGE_OP_RMS_NORM = 2,
  EDGE_OP_ROPE = 3,
  EDGE_OP_ATTENTION = 4,
  EDGE_OP_SILU = 5,
  EDGE_OP_GELU = 6,
  EDGE_OP_MUL = 7,
  EDGE_OP_ADD = 8,
  EDGE_OP_SCALE = 9,
  EDGE_OP_SPLIT = 10,
  EDGE_OP_SELECT_ROWS = 11,
  EDGE_OP_SOFTCAP = 12,
  EDGE_OP_SIGMOID = 13,
  EDGE_OP_CAUSAL_CONV = 14,
  EDGE_OP_ROUTE = 15,
  EDGE_OP_EXPERTS = 16,
  EDGE_OP_DECAY = 17,
  EDGE_OP_GATED_DELTA = 18,
  EDGE_OP_SPLIT_HEADS = 19,
  EDGE_OP_SCALE_ROWS = 20,
  EDGE_OP_TIME_STEP = 21,
  EDGE_OP_STATE_SPACE = 22,
  EDGE_OP_ATTEND = 23,
  EDGE_OP_SLICE = 24,
  EDGE_OP_RESCALE = 25,
  EDGE_OP_LAYER_NORM = 26,
  EDGE_OP_GROUPED_NORM = 27,
} edge_op;
