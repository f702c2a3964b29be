"""Stage pack: one tensor at a time is read, quantized, packed and handed on.

Matrices go through in chunks of rows, one in each core, while the tensor before is written, so that
the memory in use is two packed tensors, and those chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from math import fsum, log10, prod

import numpy as np
from numpy.typing import NDArray

from edge_llm import native
from edge_llm.errors import ExportError
from edge_llm.export.backends.registry import Backend
from edge_llm.export.lowering.lowered import Lowered
from edge_llm.export.report import Outcome, WeightRow, stack_row
from edge_llm.export.weights.parameters import Matrix, Parameters
from edge_llm.export.weights.prepared import row_chunks
from edge_llm.program.formats import RAW_F32
from edge_llm.program.plan import Weight

Bytes = NDArray[np.uint8]
Write = Callable[[str, Bytes], None]


def pack(
    lowered: Lowered,
    parameters: Parameters,
    write: Write,
    *,
    backend: Backend,
    progress: Callable[[int, int], None],
) -> list[WeightRow]:
    """Write every tensor of the plan and return a report row for each part.

    ``write(tensor, bytes)`` takes a packed tensor, in a thread of its own, one at a time in the
    plan's order; ``progress(done, total)`` counts elements.

    Raises:
        ExportError: a weight that cannot be stored; the message names it.
    """
    tensors: Mapping[str, Weight] = {weight.tensor: weight for weight in lowered.plan.weights}
    total = sum(prod(weight.shape) for weight in tensors.values())
    done = 0
    rows: list[WeightRow] = []
    written: Future[None] | None = None
    with (
        ThreadPoolExecutor(1, "edge-llm-write") as writer,
        ThreadPoolExecutor(native.default_threads(), "edge-llm-pack") as workers,
    ):
        for name, weight in tensors.items():
            parts = lowered.parts[name]
            if weight.format == RAW_F32:
                packed, part_rows = _raw(weight, parts, parameters)
            else:
                packed, part_rows = _panels(weight, parts, parameters, backend, workers)
            if written is not None:
                written.result()
            written = writer.submit(write, name, packed)
            rows += part_rows
            done += prod(weight.shape)
            progress(done, total)
        if written is not None:
            written.result()
    return rows


def _raw(
    weight: Weight, parts: tuple[str, ...], parameters: Parameters
) -> tuple[Bytes, list[WeightRow]]:
    tensors = [parameters.vector(part) for part in parts]
    for part, tensor in zip(parts, tensors, strict=True):
        if not np.isfinite(tensor).all():
            raise ExportError(f"{part} holds values that are not finite")
    joined = np.concatenate(tensors)
    rows = [
        WeightRow(
            part,
            weight.tensor,
            RAW_F32.name,
            tensor.shape,
            tensor.size * 4,
            source=parameters.sources.get(part),
            outcome="exact",
        )
        for part, tensor in zip(parts, tensors, strict=True)
    ]
    return joined.reshape(-1).view(np.uint8), rows


def _panels(
    weight: Weight,
    parts: tuple[str, ...],
    parameters: Parameters,
    backend: Backend,
    workers: ThreadPoolExecutor,
) -> tuple[Bytes, list[WeightRow]]:
    packed = np.empty(backend.packed_bytes(weight.format, *weight.matrix), np.uint8)
    offset = 0
    rows: list[WeightRow] = []
    sums: list[tuple[float, float]] = []
    for part in parts:
        matrix = parameters.matrix(part, weight.format)
        n, k = matrix.shape
        size = backend.packed_bytes(weight.format, n, k)
        place = packed[offset : offset + size]
        chunks = row_chunks(n, k, multiple=backend.row_multiple)
        lost = list(workers.map(partial(_chunk, matrix, backend, place), chunks))
        offset += size
        signal, noise = (fsum(column) for column in zip(*lost, strict=True))
        sums.append((signal, noise))
        rows.append(
            WeightRow(
                part,
                weight.tensor,
                weight.format.name,
                (n, k),
                size,
                _sqnr(signal, noise),
                parameters.sources.get(part),
                _outcome(matrix, noise),
            )
        )
    if len(weight.shape) == 2:
        return packed, rows
    return packed, [stack_row(weight, rows, _sqnr(*map(fsum, zip(*sums, strict=True))))]


def _outcome(matrix: Matrix, noise: float) -> Outcome:
    if matrix.taken_over:
        return "adjusted" if noise > 0.0 else "unchanged"
    return "rounded" if noise > 0.0 else "exact"


def _chunk(matrix: Matrix, backend: Backend, place: Bytes, rows: slice) -> tuple[float, float]:
    """Pack some rows where they belong in ``place``; return the squares of the values and of what
    rounding lost."""
    made = matrix.prepare(rows)
    begin = backend.packed_bytes(matrix.format, rows.start, matrix.shape[1]) if rows.start else 0
    data = backend.pack(made.weight)
    place[begin : begin + data.size] = data
    return made.signal, made.noise


def _sqnr(signal: float, noise: float) -> float | None:
    """Return signal to quantization noise in dB; None where there is no noise (or no signal)."""
    return round(10.0 * log10(signal / noise), 3) if signal > 0.0 and noise > 0.0 else None
