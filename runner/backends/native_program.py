"""A plan in the form that the native core reads."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edge_llm import abi
from edge_llm.errors import NativeError
from edge_llm.program.formats import ACTIVATIONS, CODES, LAYOUTS, MINIMA, SCALES
from edge_llm.program.hidden import draft_part, hidden_tail
from edge_llm.program.ops import KV_DTYPES, MAX_STATES, MAX_WEIGHTS, OPS, STATE_KINDS, STATE_SIZES
from edge_llm.program.plan import Instruction, Plan, Value
from edge_llm.runner.executor import Limits

_ALIGNMENT = 64


def aligned(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return ``data`` as contiguous bytes on a 64-byte boundary, copied only if it is not
    already."""
    data = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    if data.ctypes.data % _ALIGNMENT == 0:
        return data
    room = np.empty(data.size + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    copy = room[start : start + data.size]
    copy[:] = data
    return copy


def native_program(
    plan: Plan, weights: Mapping[str, NDArray[np.uint8]], sampleable: int
) -> abi.Program:
    """Return the C form of a plan; it keeps its tables alive, but not ``weights``."""
    tail, draft = hidden_tail(plan), draft_part(plan)
    all_values, all_instructions = plan.values, plan.instructions
    first = -1  # instruction of the draft
    for part in (tail, draft):
        if part is not None:
            first = -1 if part is tail else len(all_instructions)
            all_values += part.values
            all_instructions += part.instructions
    values = (abi.Value * len(all_values))(*map(_value, all_values))
    table = (abi.Weight * len(plan.weights))()
    for entry, weight in zip(table, plan.weights, strict=True):
        data = weights.get(weight.tensor)
        if data is None:
            raise NativeError(f"weight {weight.name} needs tensor {weight.tensor}, there is none")
        if len(weight.shape) > 3:
            raise NativeError(
                f"weight {weight.name} is {list(weight.shape)}, expected a vector, a matrix or a "
                "stack of matrices"
            )
        stored = weight.format
        entry.code = CODES.index(stored.code)
        entry.group = stored.group
        entry.scale = SCALES.index(stored.scale)
        entry.minimum = MINIMA.index(stored.minimum)
        entry.layout = LAYOUTS.index(stored.layout)
        entry.activations = ACTIVATIONS.index(weight.activations)
        entry.n, entry.k = weight.matrix
        entry.data = data.ctypes.data
        entry.bytes = data.size
    states = native_states(plan)
    instructions = (abi.Instruction * len(all_instructions))(*map(_instruction, all_instructions))
    return abi.Program(
        plan.context,
        plan.vocab,
        sampleable,
        plan.output,
        -1 if tail is None else tail.output,
        first,
        -1 if draft is None else draft.logits,
        -1 if draft is None else draft.output,
        len(values),
        len(table),
        len(states),
        len(instructions),
        values,
        table,
        states,
        instructions,
    )


def native_states(plan: Plan) -> ctypes.Array[abi.State]:
    """Return the states of a plan, each with the number of its group."""
    group_of = {number: g for g, group in enumerate(plan.groups) for number in group.states}
    return (abi.State * len(plan.states))(
        *(
            abi.State(
                STATE_KINDS.index(state.kind),
                (*(state.sizes[size] for size in STATE_SIZES[state.kind]),),
                state.window,
                group_of[number],
            )
            for number, state in enumerate(plan.states)
        )
    )


def native_limits(limits: Limits) -> abi.Limits:
    """Return the C form of limits; it keeps its array alive."""
    blocks = (ctypes.c_int32 * len(limits.blocks))(*limits.blocks)
    return abi.Limits(
        max_tokens=limits.max_tokens,
        max_rows=limits.max_rows,
        max_sequences=limits.max_sequences,
        context=limits.context,
        kv_dtype=KV_DTYPES[limits.kv_dtype],
        group_count=len(blocks),
        blocks=ctypes.cast(blocks, ctypes.POINTER(ctypes.c_int32)),
        threads=limits.threads,
        trace=limits.trace,
        read_ahead=limits.read_ahead,
    )


def _value(value: Value) -> abi.Value:
    if not value.is_matrix:
        raise NativeError(
            f"a value is {value.dtype}{list(value.dims)}, expected a matrix of T or R rows"
        )
    return abi.Value(int(value.rows == "R"), value.width, int(value.dtype == "i32"))


def _instruction(instruction: Instruction) -> abi.Instruction:
    spec = OPS[instruction.op]
    out = abi.Instruction(
        op=spec.code,
        input_count=len(instruction.inputs),
        output_count=len(instruction.outputs),
        weights=(-1,) * MAX_WEIGHTS,
        states=(instruction.state, *(-1,) * (MAX_STATES - 1)),
    )
    for slots, numbers, name in (
        (out.inputs, instruction.inputs, "inputs"),
        (out.outputs, instruction.outputs, "outputs"),
        (out.weights, instruction.weights, "weights"),
    ):
        if len(numbers) > len(slots):
            raise NativeError(f"{instruction.op} has {len(numbers)} {name}, at most {len(slots)}")
        for slot, number in enumerate(numbers):
            slots[slot] = number
    ints = floats = 0
    for attribute in spec.attributes:
        value = instruction.attributes[attribute.name]
        if attribute.kind == "int":
            out.ints[ints] = int(value)
            ints += 1
        else:
            out.floats[floats] = float(value)
            floats += 1
    return out
