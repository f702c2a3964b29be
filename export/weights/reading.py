"""Run a program over a text, and look at what its matrices are multiplied with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_llm.program.file import Program
from edge_llm.program.plan import Plan
from edge_llm.runner.backends.registry import block_tables, blocks_of, open_executor
from edge_llm.runner.executor import Batch, Limits, Segment

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Look = Callable[[int, Float32, int], None]  # a value's number, some rows, the first one's token

_WINDOW = 1024
_STEP = 64  # all values of a step are kept


@dataclass(frozen=True, slots=True)
class Read:
    """A value [T, ``width``] that the matrices of ``parameters`` are multiplied with; ``linears``
    are those of linears within the model, not of experts nor the head."""

    parameters: tuple[str, ...]
    width: int
    linears: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """A program that is there to read the tokens ``ids``. ``values`` are those that matrices are
    multiplied with, by their numbers, in the order of the model; what experts multiply inside,
    after their gate, is not among them."""

    ids: Int32
    values: Mapping[int, Read]
    _program: Program
    _backend: str

    def run(
        self, chosen: Collection[int], look: Look, progress: Callable[[int, int], None]
    ) -> None:
        """Read the text, and ``look`` at the ``chosen`` values of each step; ``progress(done,
        total)`` counts tokens.

        Raises:
            NativeError, CapacityError: the program cannot be run.
        """
        window = min(_WINDOW, self._program.plan.context)
        step = min(_STEP, window)
        limits = Limits(
            max_tokens=step,
            max_rows=step,
            max_sequences=1,
            blocks=blocks_of(self._program.plan, window, name=self._backend),
            kv_dtype=self._program.documents.model.kv_dtype,
            context=window,
            trace=True,
        )
        executor = open_executor(self._program, limits, name=self._backend)
        tables = block_tables(limits.blocks)
        try:
            for begin in range(0, len(self.ids), window):
                end = min(begin + window, len(self.ids))
                for first in range(begin, end, step):
                    tokens = self.ids[first : min(first + step, end)]
                    piece = Segment(tokens, [None] * len(tokens), first - begin)
                    executor.step(Batch.of(piece, block_tables=tables))
                    for number in chosen:
                        look(number, executor.read_value(number), first)
                    progress(first + len(tokens), len(self.ids))
        finally:
            executor.close()


@contextmanager
def reading(
    path: Path, parts: Mapping[str, tuple[str, ...]], ids: Int32, *, backend: str
) -> Iterator[Reading]:
    """Open the program of ``path`` to read the tokens ``ids`` int32 [T]; ``parts`` maps its tensors
    to their parameters."""
    with Program.open(path) as program:
        yield Reading(ids, _values(program.plan, parts), program, backend)


def _values(plan: Plan, parts: Mapping[str, tuple[str, ...]]) -> dict[int, Read]:
    found: dict[int, Read] = {}
    model = plan.language_model
    for instruction in model.instructions:
        if instruction.op not in ("linear", "experts"):
            continue
        matrices = instruction.weights[: 1 if instruction.op == "linear" else 2]  # gate and up
        names = [part for index in matrices for part in parts[plan.weights[index].tensor]]
        value = instruction.inputs[0]
        before = found.get(value, Read((), model.values[value].width, ()))
        within = instruction.op == "linear" and model.values[value].rows == "T"
        found[value] = Read(
            (*before.parameters, *names),
            before.width,
            (*before.linears, *names) if within else before.linears,
        )
    return found
