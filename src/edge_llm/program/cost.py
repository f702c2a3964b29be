"""What a step costs: bytes read and operations done, from the plan alone.

Figures count what the arithmetic needs: every packed weight once per step, one row of an embedding
per token, and the KV entries that attention reads. They are the numerators of GB/s and GOP/s.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_llm.program.ops import RAW_F32
from edge_llm.program.pack import packed_bytes
from edge_llm.program.plan import Plan, Weight


def kv_row_bytes(head_dim: int, dtype: str) -> int:
    """Bytes of one token's key (or value) of one kv head in a cache of ``dtype``, a key of
    KV_DTYPES; i8 counts its scale."""
    return {"f32": 4 * head_dim, "f16": 2 * head_dim, "i8": head_dim + 4}[dtype]


def weight_bytes(plan: Plan) -> int:
    """Bytes of weights that one decode step reads, however few tokens it holds."""
    return sum(
        _bytes(plan.weights[index])
        for instruction in plan.instructions
        if instruction.op not in ("embedding", "rope")  # they read a row or two of theirs
        for index in instruction.weights
        if index >= 0
    )


def kv_bytes(plan: Plan, depth: int) -> int:
    """Bytes of keys and values that one token reads with ``depth`` tokens before it."""
    return kv_reader(plan)(depth)


def kv_reader(plan: Plan) -> Callable[[int], int]:
    """`kv_bytes` of one plan, prepared for being called at every step."""
    by_window: dict[int, int] = {}  # bytes of one position, of all layers with that window
    for instruction in plan.instructions:
        if instruction.op == "attention":
            state = plan.states[instruction.state]
            window = int(instruction.attributes["window"])
            position = 2 * state.kv_heads * kv_row_bytes(state.head_dim, state.dtype)
            by_window[window] = by_window.get(window, 0) + position

    def read(depth: int) -> int:
        seen = depth + 1
        return sum(
            size * (min(seen, window) if window else seen) for window, size in by_window.items()
        )

    return read


def decode_bytes(plan: Plan, depth: int) -> int:
    """Bytes read by a step of one token with ``depth`` tokens before it."""
    return weight_bytes(plan) + kv_bytes(plan, depth)


def prefill_operations(plan: Plan, tokens: int, depth: int = 0, rows: int = 1) -> int:
    """Multiplications plus additions of a step (or chunks that add up to it) of ``tokens`` tokens
    after ``depth`` cached ones, with logits for ``rows`` of them."""
    total = 0
    for instruction in plan.instructions:
        if instruction.op == "linear":
            n, k = plan.weights[instruction.weights[0]].shape
            count = tokens if plan.values[instruction.outputs[0]].rows == "T" else rows
            total += 2 * n * k * count
        elif instruction.op == "attention":
            heads = int(instruction.attributes["heads"])
            head_dim = int(instruction.attributes["head_dim"])
            window = int(instruction.attributes["window"])
            seen = sum(
                min(position + 1, window) if window else position + 1
                for position in range(depth, depth + tokens)
            )
            total += 4 * heads * head_dim * seen
    return total


def _bytes(weight: Weight) -> int:
    if weight.format == RAW_F32:
        size = 4
        for extent in weight.shape:
            size *= extent
        return size
    n, k = weight.shape
    return packed_bytes(weight.format, n, k)
