"""The cost of a step: bytes read and operations done, from the plan alone.

Figures count what the arithmetic needs: every packed weight once per step, one row of an embedding
per token, of experts those that are chosen, and the part of each state that is read. They are the
numerators of GB/s and GOP/s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from edge_llm.program.ops import FOLD_HEADS, FOLD_ROWS, OPS
from edge_llm.program.pack import packed_bytes
from edge_llm.program.plan import Instruction, Plan, State, Weight

_BLOCK = 64  # positions of a block


def kv_row_bytes(head_dim: int, dtype: str) -> int:
    """Bytes of one token's key (or value) of one kv head in a cache of ``dtype``, a key of
    KV_DTYPES; i8 counts its scale."""
    return {"f32": 4 * head_dim, "f16": 2 * head_dim, "i8": head_dim + 4}[dtype]


def position_bytes(state: State, kv_dtype: str) -> int:
    """Return the bytes of one position of a state, without the matrices of a fold."""
    sizes = state.sizes
    if state.kind == "rows":
        return 4 * sizes["width"]
    if state.kind == "fold":
        copies = -(-sizes["heads"] // sizes["key_heads"] // FOLD_HEADS)
        keys = sizes["key_heads"] * copies * sizes["k_dim"]
        return 4 * (keys + sizes["heads"] * sizes["v_dim"] + sizes["heads"])  # updates, decays
    key, value = (kv_row_bytes(sizes[name], kv_dtype) for name in ("k_dim", "v_dim"))
    return sizes["heads"] * (key + value)


def matrix_bytes(state: State) -> int:
    """Return the bytes of a fold's matrices; 0 of other states."""
    sizes = state.sizes
    if state.kind != "fold":
        return 0
    return 4 * sizes["heads"] * sizes["k_dim"] * sizes["v_dim"]


def page_bytes(state: State, kv_dtype: str, positions: int) -> int:
    """Return the bytes of a state in a block of so many ``positions``, but for padding: a fold has
    its matrices before the block, and those of a place inside."""
    return positions * position_bytes(state, kv_dtype) + 2 * matrix_bytes(state)


def weight_bytes(plan: Plan) -> int:
    """Bytes of weights that a step of one token reads."""
    return sum(
        _read_bytes(plan, instruction, 1)
        for instruction in plan.instructions
        if OPS[instruction.op].cost != "gather"
    )


def expert_bytes(plan: Plan) -> tuple[int, int]:
    """Return the bytes of all experts, and of those that a step of one token reads."""
    experts = [op for op in plan.instructions if OPS[op.op].cost == "experts"]
    weights = {
        plan.weights[i].tensor: plan.weights[i] for op in experts for i in op.weights if i >= 0
    }
    stacks = sum(map(tensor_bytes, weights.values()))
    return stacks, sum(_read_bytes(plan, op, 1) for op in experts)


def stored_bytes(plan: Plan) -> int:
    """Bytes of all weights in the file; one that two names share counts once."""
    return sum(tensor_bytes(weight) for weight in {w.tensor: w for w in plan.weights}.values())


def kv_bytes(plan: Plan, depth: int, kv_dtype: str) -> int:
    """Return the bytes of states that one token reads with ``depth`` tokens before it, keys and
    values being of ``kv_dtype``, a key of KV_DTYPES."""
    return kv_reader(plan, kv_dtype)(depth)


def kv_reader(plan: Plan, kv_dtype: str) -> Callable[[int], int]:
    """Return `kv_bytes` of one plan, prepared for being called at every step."""
    by_window: dict[int, int] = {}  # bytes of one position, of all layers with that window
    matrices = 0
    for instruction in plan.instructions:
        if instruction.state >= 0:
            state = plan.states[instruction.state]
            matrices += matrix_bytes(state)
            if state.kind == "fold":
                continue
            by_window[state.window] = by_window.get(state.window, 0) + position_bytes(
                state, kv_dtype
            )

    def read(depth: int) -> int:
        seen = depth + 1
        return matrices + sum(
            size * (min(seen, window) if window else seen) for window, size in by_window.items()
        )

    return read


def token_bytes(plan: Plan, kv_dtype: str) -> int:
    """Return the bytes of keys and values of one token, in a cache of ``kv_dtype``."""
    return sum(position_bytes(state, kv_dtype) for state in plan.states if state.kind == "kv")


def context_bytes(plan: Plan, kv_dtype: str, step_tokens: int) -> int:
    """Return the most bytes of states that one sequence of the whole context holds at a time: where
    a window is all that is read again, that window and a step, in whole blocks."""

    def positions(window: int) -> int:
        if not window:
            return plan.context
        return min(plan.context, (-(-(window + step_tokens - 2) // _BLOCK) + 1) * _BLOCK)

    def size(state: State) -> int:
        count = positions(state.window)
        blocks = -(-count // _BLOCK)
        return position_bytes(state, kv_dtype) * count + 2 * matrix_bytes(state) * blocks

    return sum(map(size, plan.states))


def decode_bytes(plan: Plan, depth: int, kv_dtype: str) -> int:
    """Return the bytes that a step of one token reads with ``depth`` tokens before it."""
    return weight_bytes(plan) + kv_bytes(plan, depth, kv_dtype)


def prefill_operations(plan: Plan, tokens: int, depth: int = 0, rows: int = 1) -> int:
    """Multiplications plus additions of a step (or chunks that add up to it) of ``tokens`` tokens
    after ``depth`` cached ones, with logits for ``rows`` of them."""
    return sum(
        _operations(plan, instruction, tokens, depth, rows) for instruction in plan.instructions
    )


def attention_operations(plan: Plan, tokens: int, depth: int = 0) -> int:
    """The part of `prefill_operations` that attention does, in float32."""
    return sum(
        _operations(plan, instruction, tokens, depth, 0)
        for instruction in plan.instructions
        if OPS[instruction.op].cost == "attention"
    )


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes of weights and states that are read or written, and multiplications plus additions of
    linears, attention, convolutions and folds. Activations and what they are computed with are
    left out: they stay in the caches, and are small beside the rest."""

    bytes: int
    operations: int


def instruction_cost(
    plan: Plan,
    instruction: Instruction,
    *,
    tokens: int,
    kv_dtype: str,
    depth: int = 0,
    rows: int = 1,
) -> Cost:
    """Return what one instruction costs in a step of one sequence: ``tokens`` tokens after
    ``depth`` cached ones, with ``rows`` rows of logits and a cache of ``kv_dtype``. A weight counts
    once a step, an embedding its rows, a state the tokens that are written and, once, all that any
    of them sees."""
    operations = _operations(plan, instruction, tokens, depth, rows)
    count = tokens if plan.values[instruction.outputs[0]].rows == "T" else rows
    size = 0
    if instruction.state >= 0:
        state = plan.states[instruction.state]
        seen = depth + tokens
        if state.window:
            seen = min(seen, state.window + tokens - 1)
        if state.kind == "fold":
            seen = 0  # but for the matrices, which each block of rows reads
        written = tokens if OPS[instruction.op].writes else 0
        size = position_bytes(state, kv_dtype) * (seen + written)
        size += matrix_bytes(state) * -(-tokens // FOLD_ROWS)
    return Cost(size + _read_bytes(plan, instruction, count), operations)


def _read_bytes(plan: Plan, instruction: Instruction, rows: int) -> int:
    """Return the bytes of weights that an instruction reads for ``rows`` rows. Experts are those
    that rows would choose by chance alone."""
    weights = [plan.weights[index] for index in instruction.weights if index >= 0]
    cost = OPS[instruction.op].cost
    if cost == "gather":
        return sum(rows * (tensor_bytes(weight) // weight.shape[0]) for weight in weights)
    total = sum(map(tensor_bytes, weights))
    if cost == "adapter":
        return total // int(instruction.attributes["adapters"])
    if cost != "experts":
        return total
    chosen, experts = (int(instruction.attributes[name]) for name in ("chosen", "experts"))
    return round(total * (1.0 - (1.0 - chosen / experts) ** rows))


def _operations(plan: Plan, instruction: Instruction, tokens: int, depth: int, rows: int) -> int:
    cost = OPS[instruction.op].cost
    count = tokens if plan.values[instruction.outputs[0]].rows == "T" else rows
    if cost == "product":
        n, k = plan.weights[instruction.weights[0]].shape
        return 2 * n * k * count
    if cost == "adapter" and instruction.op != "adapter_gather":
        _, n, k = plan.weights[instruction.weights[0]].shape
        return 2 * n * k * count
    if cost == "experts":
        matrices = [plan.weights[index].shape for index in instruction.weights[:3]]
        return (
            2 * sum(n * k for _, n, k in matrices) * int(instruction.attributes["chosen"]) * count
        )
    if cost == "attention":
        heads = int(instruction.attributes["heads"])
        head_dim = int(instruction.attributes["head_dim"])
        window = plan.states[instruction.state].window
        end = depth + tokens
        seen = sum(
            min(position + 1, window) if window else position + 1
            for position in range(end - count, end)
        )
        if instruction.attributes.get("bidirectional"):
            behind = (end - 1 - position for position in range(end - count, end))
            seen += sum(min(left, window - 1) if window else left for left in behind)
        return 4 * heads * head_dim * seen
    if cost == "convolution":
        taps = int(instruction.attributes["taps"])
        return 2 * taps * plan.states[instruction.state].sizes["width"] * tokens
    if cost in ("fold", "delta"):  # one or two products with a matrix, and what a row adds to it
        each = 4 if cost == "fold" else 6
        return each * matrix_bytes(plan.states[instruction.state]) // 4 * tokens
    return 0


def tensor_bytes(weight: Weight) -> int:
    """Return the size of a weight in the file: its matrices one after the other, or float32
    numbers.

    Raises:
        ProgramError: the format cannot hold such a shape.
    """
    if not weight.format.is_panel:
        return 4 * prod(weight.shape)
    *stack, n, k = weight.shape
    return prod(stack) * packed_bytes(weight.format, n, k)
