"""Comparing a backend with the PyTorch oracle, instruction by instruction.

Each instruction of the oracle gets the inputs that the other backend computed itself. Comparing two
whole runs would say little: where activations are rounded to int8, a difference in the last bit of
one value becomes a whole step of the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import RequestError
from edge_llm.program.file import Program
from edge_llm.program.plan import Plan
from edge_llm.runner.backends import registry
from edge_llm.runner.executor import Batch, Executor, Float32, Limits, Segment

TOLERANCE = 1e-3  # of the standard deviation of an output; rounding alone stays far below
_TOKENS = 32  # of the prompt, where the program has no golden ones


class Oracle(Protocol):
    """The abilities of the torch backend's executor besides running steps."""

    def run_instruction(
        self, index: int, inputs: Sequence[NDArray[np.generic]], batch: Batch
    ) -> list[Float32]: ...


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One output of one instruction: its largest difference from the oracle's, and that in
    standard deviations of the oracle's."""

    index: int
    op: str
    source: str
    max_abs_diff: float
    relative_error: float

    @property
    def failed(self) -> bool:
        """More than rounding explains (or not a number)."""
        return not self.relative_error <= TOLERANCE


def trace(
    program: Program,
    token_ids: Sequence[int] | None = None,
    *,
    threads: int = 0,
) -> list[TraceRow]:
    """Run a prompt (None: the first golden one) in one step on the native backend, and every
    instruction again on the torch backend with the same inputs.

    Raises:
        RequestError: no tokens, or more than the context.
        MissingDependencyError: PyTorch is not installed.
        NativeError, CapacityError: the native backend cannot run the program.
    """
    plan = program.plan
    token_ids = _default_tokens(program) if token_ids is None else token_ids
    count = len(token_ids)
    if not 1 <= count <= plan.context:
        raise RequestError(f"a trace takes 1 to {plan.context} tokens, got {count}")
    blocks = registry.blocks_of(plan, count)
    limits = Limits(
        max_tokens=count,
        max_rows=count,
        max_sequences=1,
        blocks=blocks,
        kv_dtype=program.documents.model.kv_dtype,
        threads=threads,
        trace=True,
    )
    batch = Batch.of(Segment(token_ids, [None] * count), block_tables=registry.block_tables(blocks))
    executors: list[Executor] = []
    try:
        for name in ("torch", "native"):
            executors.append(registry.open_executor(program, limits, name=name))
        return compare(plan, executors[1], cast(Oracle, executors[0]), batch)
    finally:
        for executor in executors:
            executor.close()


def compare(plan: Plan, executor: Executor, oracle: Oracle, batch: Batch) -> list[TraceRow]:
    """Run ``batch`` on ``executor`` (loaded with ``limits.trace``) and each instruction again on
    ``oracle``. The batch must begin its sequences: only then both caches hold the same."""
    executor.step(batch)
    given = (batch.tokens, batch.positions, batch.sequences, batch.rows)
    computed = [executor.read_value(number) for number in range(len(given), len(plan.values))]
    values = [*given, *computed]
    rows: list[TraceRow] = []
    for index, op in enumerate(plan.instructions):
        expected = oracle.run_instruction(index, [values[number] for number in op.inputs], batch)
        for number, reference in zip(op.outputs, expected, strict=True):
            worst = float(np.abs(computed[number - len(given)] - reference).max(initial=0.0))
            deviation = float(reference.std(dtype=np.float64))
            relative = worst / deviation if deviation else (float("inf") if worst else 0.0)
            rows.append(TraceRow(index, op.op, op.source, worst, relative))
    return rows


def _default_tokens(program: Program) -> list[int]:
    golden = program.golden
    if golden is None:
        return list(range(min(_TOKENS, program.plan.context, program.documents.tokenizer.size)))
    first = golden.tokens[0]
    return [int(token) for token in first[first >= 0]]
