"""How much each column of a linear counts: what it is multiplied with, measured while the program,
rounded without that knowledge, reads a text.

The error that rounding a row w by d makes in its product with x is d . x, whose square has the mean
of d[i] d[j] x[i] x[j] over all pairs of columns. What is measured here is the diagonal of that, the
mean of each x[i] squared: it costs one pass over a few thousand tokens, and nothing of it needs
PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

TOKENS = 4096  # more change nothing that could be measured (docs/quantization.md)
LEAST_TOKENS = 256
_WINDOW = 1024
_STEP = 64  # all values of a step are kept
_FLOOR = 1e-3  # of the mean: no column counts for nothing


def column_weights(
    path: Path,
    parts: Mapping[str, tuple[str, ...]],
    text: str,
    *,
    backend: str,
    progress: Callable[[int, int], None],
) -> dict[str, Float32]:
    """Return how much each column of a parameter counts, by the parameter's name: the mean square
    of what it is multiplied with, over the first `TOKENS` tokens of ``text``, relative to that of
    all columns; float32 [K]. What experts multiply inside, after their gate, is not measured.

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
        window = min(_WINDOW, plan.context)
        step = min(_STEP, window)
        limits = Limits(
            max_tokens=step,
            max_rows=step,
            max_sequences=1,
            blocks=blocks_of(plan, window, name=backend),
            kv_dtype=program.documents.model.kv_dtype,
            context=window,
            trace=True,
        )
        executor = open_executor(program, limits, name=backend)
        try:
            squares = _squares(executor, plan, ids, window, progress)
        finally:
            executor.close()
    columns: dict[str, Float32] = {}
    for tensor, total in squares.items():
        if not np.isfinite(total).all():
            raise ExportError(f"calibration: what {tensor} is multiplied with is not finite")
        mean = total.mean()
        counts = (total / mean if mean > 0.0 else np.ones_like(total)) + _FLOOR
        columns |= dict.fromkeys(parts[tensor], counts.astype(np.float32))
    return columns


def _squares(
    executor: Executor,
    plan: Plan,
    ids: NDArray[np.int32],
    window: int,
    progress: Callable[[int, int], None],
) -> dict[str, NDArray[np.float64]]:
    """Return the sums of squares of what each tensor is multiplied with, [K] by its name."""
    readers: dict[int, list[str]] = {}  # value -> tensors
    for instruction in plan.language_model.instructions:
        if instruction.op in ("linear", "experts"):
            read = instruction.weights[: 1 if instruction.op == "linear" else 2]  # gate and up
            names = [plan.weights[index].tensor for index in read]
            readers.setdefault(instruction.inputs[0], []).extend(names)
    sums: dict[int, NDArray[np.float64]] = {}
    tables = block_tables(executor.limits.blocks)
    for begin in range(0, len(ids), window):
        part = ids[begin : begin + window]
        for first in range(0, len(part), executor.limits.max_tokens):
            tokens = part[first : first + executor.limits.max_tokens]
            executor.step(
                Batch.of(Segment(tokens, [None] * len(tokens), first), block_tables=tables)
            )
            for value in readers:
                rows = executor.read_value(value)
                total = np.einsum("tk,tk->k", rows, rows, dtype=np.float64)
                sums[value] = sums[value] + total if value in sums else total
            progress(begin + first + len(tokens), len(ids))
    return {tensor: sums[value] for value, tensors in readers.items() for tensor in tensors}
