"""The native core's C ABI (runner/native/include/edge_llm.h) as ctypes sees it: a mirror of every
struct, and the types of every function."""

from __future__ import annotations

from ctypes import (
    POINTER,
    Structure,
    c_char_p,
    c_float,
    c_int32,
    c_int64,
    c_uint32,
    c_uint64,
    c_void_p,
)

from edge_llm.program import ops

ABI_VERSION = 22
MAX_LOGPROBS = 20


class Instruction(Structure):
    _fields_ = [
        ("op", c_int32),
        ("input_count", c_int32),
        ("output_count", c_int32),
        ("inputs", c_int32 * ops.MAX_INPUTS),
        ("outputs", c_int32 * ops.MAX_OUTPUTS),
        ("weights", c_int32 * ops.MAX_WEIGHTS),
        ("states", c_int32 * ops.MAX_STATES),
        ("ints", c_int32 * ops.MAX_INTS),
        ("floats", c_float * ops.MAX_FLOATS),
    ]


class Value(Structure):
    _fields_ = [("rows", c_int32), ("width", c_int32), ("dtype", c_int32)]


class Weight(Structure):
    _fields_ = [
        ("code", c_int32),
        ("group", c_int32),
        ("scale", c_int32),
        ("minimum", c_int32),
        ("layout", c_int32),
        ("activations", c_int32),
        ("n", c_int32),
        ("k", c_int32),
        ("data", c_void_p),
        ("bytes", c_uint64),
    ]


class State(Structure):
    _fields_ = [
        ("kind", c_int32),
        ("sizes", c_int32 * ops.MAX_STATE_SIZES),
        ("window", c_int32),
        ("group", c_int32),
    ]


class Program(Structure):
    _fields_ = [
        ("context", c_int32),
        ("vocab", c_int32),
        ("sampleable", c_int32),
        ("output", c_int32),
        ("hidden", c_int32),
        ("draft", c_int32),
        ("draft_output", c_int32),
        ("draft_hidden", c_int32),
        ("value_count", c_int32),
        ("weight_count", c_int32),
        ("state_count", c_int32),
        ("instruction_count", c_int32),
        ("values", POINTER(Value)),
        ("weights", POINTER(Weight)),
        ("states", POINTER(State)),
        ("instructions", POINTER(Instruction)),
    ]


class Limits(Structure):
    _fields_ = [
        ("max_tokens", c_int32),
        ("max_rows", c_int32),
        ("max_sequences", c_int32),
        ("context", c_int32),
        ("kv_dtype", c_int32),
        ("group_count", c_int32),
        ("blocks", POINTER(c_int32)),
        ("threads", c_int32),
        ("trace", c_int32),
        ("read_ahead", c_int32),
    ]


class Sampler(Structure):
    _fields_ = [
        ("sample", c_int32),
        ("temperature", c_float),
        ("top_k", c_int32),
        ("top_p", c_float),
        ("min_p", c_float),
        ("repetition_penalty", c_float),
        ("presence_penalty", c_float),
        ("frequency_penalty", c_float),
        ("typical_p", c_float),
        ("dry_multiplier", c_float),
        ("dry_base", c_float),
        ("dry_allowed_length", c_int32),
        ("dry_penalty_last_n", c_int32),
        ("xtc_probability", c_float),
        ("xtc_threshold", c_float),
        ("top_logprobs", c_int32),
        ("seed", c_uint64),
        ("counter", c_uint64),
        ("history", c_void_p),
        ("history_length", c_int32),
        ("prompt_length", c_int32),
        ("bias_ids", c_void_p),
        ("bias_values", c_void_p),
        ("bias_count", c_int32),
        ("breakers", c_void_p),
        ("allowed", c_void_p),
        ("target", c_int32),
    ]


class Sample(Structure):
    _fields_ = [
        ("id", c_int32),
        ("status", c_int32),
        ("logprob", c_float),
        ("top_count", c_int32),
        ("top_ids", c_int32 * MAX_LOGPROBS),
        ("top_logprobs", c_float * MAX_LOGPROBS),
    ]


class Batch(Structure):
    _fields_ = [
        ("tokens_count", c_int32),
        ("rows_count", c_int32),
        ("sequence_count", c_int32),
        ("block_stride", c_int32),
        ("tokens", c_void_p),
        ("positions", c_void_p),
        ("sequences", c_void_p),
        ("adapters", c_void_p),
        ("rows", c_void_p),
        ("block_tables", c_void_p),
        ("samplers", c_void_p),
        ("samples", c_void_p),
        ("logits", c_void_p),
        ("hidden_count", c_int32),
        ("hidden_rows", c_void_p),
        ("hidden", c_void_p),
        ("draft", c_int32),
        ("workers", c_int32),
        ("patient", c_int32),
    ]


MAX_PHASE_INSTRUCTIONS = 8


class Phase(Structure):
    _fields_ = [
        ("work", c_char_p),
        ("barrier", c_int32),
        ("instruction_count", c_int32),
        ("instructions", c_int32 * MAX_PHASE_INSTRUCTIONS),
    ]


class ProfileStep(Structure):
    _fields_ = [
        ("tokens", c_int32),
        ("rows", c_int32),
        ("threads", c_int32),
        ("phases", c_int32),
        ("begin", c_int64),
        ("end", c_int64),
    ]


BPE_PROBES = 64


class Bpe(Structure):
    _fields_ = [
        ("unit_count", c_int32),
        ("merge_rows", c_uint32),
        ("word_rows", c_uint32),
        ("units", c_void_p),
        ("merges", c_void_p),
        ("words", c_void_p),
        ("offsets", c_void_p),
        ("texts", c_void_p),
    ]


# name -> (result type, argument types); a result of c_uint32 is an edge_status
FUNCTIONS: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "edge_last_error": (c_char_p, ()),
    "edge_isa": (c_char_p, ()),
    "edge_default_threads": (c_int32, ()),
    "edge_measure_cores": (c_uint32, (c_int32, c_void_p)),
    "edge_block_size": (c_int32, ()),
    "edge_block_bytes": (c_uint32, (c_void_p, c_int32, c_void_p, c_int32)),
    "edge_load": (c_uint32, (c_void_p, c_void_p, c_void_p)),
    "edge_step": (c_uint32, (c_void_p, c_void_p)),
    "edge_copy_block": (c_uint32, (c_void_p, c_int32, c_int32, c_int32)),
    "edge_read_block": (c_uint32, (c_void_p, c_int32, c_int32, c_void_p, c_uint64)),
    "edge_write_block": (c_uint32, (c_void_p, c_int32, c_int32, c_void_p, c_uint64)),
    "edge_read_value": (c_uint32, (c_void_p, c_int32, c_void_p, c_uint64)),
    "edge_profile_start": (c_uint32, (c_void_p, c_int32)),
    "edge_profile_phases": (c_uint32, (c_void_p, c_int32, c_void_p, c_int32, c_void_p)),
    "edge_profile_read": (c_uint32, (c_void_p, c_int32, c_void_p, c_void_p, c_uint64)),
    "edge_measure": (c_uint32, (c_int32, c_int32, c_void_p)),
    "edge_free": (None, (c_void_p,)),
    "edge_bpe_merge": (
        c_uint32,
        (c_void_p, c_void_p, c_void_p, c_uint64, c_void_p, c_void_p, c_void_p),
    ),
    "edge_quantize_groups": (
        c_uint32,
        (c_void_p, c_int64, *(c_int32,) * 4, *(c_void_p,) * 5),
    ),
    "edge_quantize_int8": (
        c_uint32,
        (c_void_p, c_int64, c_int32, c_void_p, c_void_p, c_void_p, c_void_p),
    ),
}
