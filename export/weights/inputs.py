"""Measure what the linears of a program are multiplied with while it reads a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import ConfigError, ExportError
from edge_llm.program.file import Program
from edge_llm.program.plan import Plan
from edge_llm.runner.backends.registry import block_tables, blocks_of, open_executor
from edge_llm.runner.executor import Batch, Executor, Limits, Segment
from edge_llm.tokenizers.tokenizer import tokenizer_of

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]

TOKENS = 4096  # more change nothing that could be measured (docs/quantization.md)
LEAST_TOKENS = 256
_SAMPLES = 512  # tokens whose inputs are kept
_WINDOW = 1024
_STEP = 64  # all values of a step are kept


@dataclass(frozen=True, slots=True)
class Inputs:
    """The input of a linear [T, K]: of each column the mean ``square`` and ``magnitude`` and the
    ``largest`` magnitude, float64 [K], and some ``rows`` float32 [S, K], none where only experts
    read it."""

    square: Float64
    magnitude: Float64
    largest: Float64
    rows: Float32


class _Sums:
    def __init__(self, rows: int, width: int) -> None:
        self.square = np.zeros(width)
        self.magnitude = np.zeros(width)
        self.largest = np.zeros(width)
        self.rows: list[Float32] = []
        self._every = rows

    def add(self, values: Float32, first: int) -> None:
        """Add the rows of the tokens from ``first`` on."""
        self.square += np.einsum("tk,tk->k", values, values, dtype=np.float64)
        sizes = np.abs(values)
        self.magnitude += sizes.sum(axis=0, dtype=np.float64)
        np.maximum(self.largest, sizes.max(axis=0), out=self.largest)
        if self._every:
            self.rows.append(values[-first % self._every :: self._every].copy())


def measure(
    path: Path,
    parts: Mapping[str, tuple[str, ...]],
    text: str,
    *,
    backend: str,
    progress: Callable[[int, int], None],
) -> dict[str, Inputs]:
    """Return what each parameter is multiplied with over the first `TOKENS` tokens of ``text``, by
    the parameter's name. What experts multiply inside, after their gate, is not measured.

    ``path`` is the program, ``parts`` maps its tensors to their parameters; ``progress(done,
    total)`` counts tokens.

    Raises:
        ConfigError: the text has less than `LEAST_TOKENS` tokens.
        ExportError: the model computes values that are not finite.
        NativeError, CapacityError: the program cannot be run.
    """
    with Program.open(path) as program:
        plan = program.plan
        ids = np.array(tokenizer_of(program).encode(text)[:TOKENS], np.int32)
        if len(ids) < LEAST_TOKENS:
            raise ConfigError(
                f"calibration: the text has {len(ids)} tokens, expected at least {LEAST_TOKENS}"
            )
        readers = _readers(plan)
        every = max(len(ids) // _SAMPLES, 1)
        sums = {
            value: _Sums(every if linear else 0, plan.language_model.values[value].width)
            for value, (_, linear) in readers.items()
        }
        window = min(_WINDOW, plan.context)
        executor = open_executor(program, _limits(program, window, backend), name=backend)
        try:
            for first, last in _read(executor, ids, window):
                for value, total in sums.items():
                    total.add(executor.read_value(value), first)
                progress(last, len(ids))
        finally:
            executor.close()
    found: dict[str, Inputs] = {}
    for value, (tensors, _) in readers.items():
        inputs = _finished(sums[value], len(ids))
        if not np.isfinite(inputs.square).all():
            raise ExportError(f"calibration: what {tensors[0]} is multiplied with is not finite")
        found |= {part: inputs for tensor in tensors for part in parts[tensor]}
    return found


def _readers(plan: Plan) -> dict[int, tuple[list[str], bool]]:
    """Return the values that matrices are multiplied with: those tensors, and whether one is that
    of a linear within the model, neither experts nor the head."""
    readers: dict[int, tuple[list[str], bool]] = {}
    for instruction in plan.language_model.instructions:
        if instruction.op not in ("linear", "experts"):
            continue
        read = instruction.weights[: 1 if instruction.op == "linear" else 2]  # gate and up
        names = [plan.weights[index].tensor for index in read]
        (value, *_) = instruction.inputs
        within = instruction.op == "linear" and plan.language_model.values[value].rows == "T"
        before, linear = readers.get(value, ([], False))
        readers[value] = [*before, *names], linear or within
    return readers


def _limits(program: Program, window: int, backend: str) -> Limits:
    step = min(_STEP, window)
    return Limits(
        max_tokens=step,
        max_rows=step,
        max_sequences=1,
        blocks=blocks_of(program.plan, window, name=backend),
        kv_dtype=program.documents.model.kv_dtype,
        context=window,
        trace=True,
    )


def _read(executor: Executor, ids: Int32, window: int) -> Iterator[tuple[int, int]]:
    """Run ``ids`` window by window; yield, after each step, the range of its tokens."""
    tables = block_tables(executor.limits.blocks)
    for begin in range(0, len(ids), window):
        end = min(begin + window, len(ids))
        for first in range(begin, end, executor.limits.max_tokens):
            tokens = ids[first : min(first + executor.limits.max_tokens, end)]
            piece = Segment(tokens, [None] * len(tokens), first - begin)
            executor.step(Batch.of(piece, block_tables=tables))
            yield first, first + len(tokens)


def _finished(sums: _Sums, tokens: int) -> Inputs:
    rows = np.concatenate(sums.rows) if sums.rows else np.empty((0, len(sums.square)), np.float32)
    return Inputs(sums.square / tokens, sums.magnitude / tokens, sums.largest, rows)
