"""Measure how far a program is from a reference after each layer, on the same tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_llm.errors import RequestError
from edge_llm.program.file import Program
from edge_llm.program.plan import Plan, layer_of
from edge_llm.runner.backends import registry
from edge_llm.runner.executor import Batch, Float32, Limits, Segment

TOKENS = 256  # of a text, in one step


def layer_outputs(program: Program, token_ids: Sequence[int], *, threads: int = 0) -> list[Float32]:
    """Return what leaves each layer, [tokens, width] each, of ``token_ids`` in one step on the
    native backend.

    Raises:
        RequestError: no tokens, or more than the context.
        NativeError, CapacityError: the native backend cannot run the program.
    """
    plan, count = program.plan, len(token_ids)
    if not 1 <= count <= plan.context:
        raise RequestError(f"layers take 1 to {plan.context} tokens, got {count}")
    blocks = registry.blocks_of(plan, count)
    executor = registry.open_executor(
        program,
        Limits(
            max_tokens=count,
            max_rows=1,
            max_sequences=1,
            blocks=blocks,
            kv_dtype=program.documents.model.kv_dtype,
            threads=threads,
            trace=True,
        ),
    )
    try:
        executor.step(
            Batch.of(Segment(token_ids, [None]), block_tables=registry.block_tables(blocks))
        )
        return [executor.read_value(value) for value in _last_values(plan)]
    finally:
        executor.close()


def layer_errors(outputs: Sequence[Float32], reference: Sequence[Float32]) -> list[float]:
    """Return for each layer the norm of the difference of `layer_outputs`, as a share of the
    reference's norm.

    Raises:
        RequestError: the two do not have the same layers and widths.
    """
    ours, theirs = ([value.shape for value in values] for values in (outputs, reference))
    if ours != theirs:
        raise RequestError(
            f"the program has {len(ours)} layers of {ours[-1][1] if ours else 0}, "
            f"expected the reference's {len(theirs)} of {theirs[-1][1] if theirs else 0}"
        )
    return [
        float(np.linalg.norm(mine - other) / max(np.linalg.norm(other), np.finfo(np.float32).tiny))
        for mine, other in zip(outputs, reference, strict=True)
    ]


def _last_values(plan: Plan) -> list[int]:
    """Return the number of the value that each layer's last instruction computes."""
    last = {
        layer: instruction.outputs[-1]
        for instruction in plan.instructions
        if (layer := layer_of(plan, instruction)) is not None and instruction.outputs
    }
    return [last[layer] for layer in sorted(last)]
