"""Round the matrices of linears whose inputs are known, each as a whole."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from edge_llm import native
from edge_llm.export.weights.inputs import WholeInputs
from edge_llm.export.weights.kept import Arrays, Kept
from edge_llm.export.weights.parameters import Matrix
from edge_llm.export.weights.prepared import row_chunks
from edge_llm.export.weights.successive import Dependence, dependence, round_successively
from edge_llm.program.integers import Integers
from edge_llm.program.pack import pack_integers, unpack_integers

Float32 = NDArray[np.float32]


class Rounder:
    """Chooses the scales of groups by how much each column counts, and then the codes column after
    column; what is in ``kept`` is taken from there. ``count`` says of how many matrices."""

    def __init__(self, inputs: WholeInputs, kept: Kept) -> None:
        self.count = 0
        self._inputs = inputs
        self._kept = kept
        self._last: tuple[Float32, Float32 | None, Dependence] | None = None

    def __call__(self, matrix: Matrix) -> Integers | None:
        """Return what a matrix is rounded to; None: each row is rounded for itself.

        Raises:
            CheckpointError: its file was cut short.
            ExportError: values that are not finite, or that the format cannot hold.
            NativeError, CapacityError: the text cannot be read again.
        """
        if not matrix.format.group or not matrix.format.is_made:
            return None
        if not self._inputs.has(matrix.name):
            return None
        self.count += 1

        def made() -> Arrays:
            return {"panels": pack_integers(self._rounded(matrix))}

        found = self._kept.of(f"matrix {matrix.name} {matrix.format.name}", made)
        return unpack_integers(found["panels"], matrix.format, *matrix.shape)

    def _rounded(self, matrix: Matrix) -> Integers:
        inputs = self._inputs.of(matrix.name)
        with ThreadPoolExecutor(native.default_threads(), "edge-llm-round") as workers:
            made = list(workers.map(matrix.prepare, row_chunks(*matrix.shape)))
        values = matrix.floats(slice(None))
        parts = [part.weight for part in made if isinstance(part.weight, Integers)]
        assert values is not None
        start = Integers(
            matrix.format,
            np.concatenate([part.codes for part in parts]),
            np.concatenate([part.scale for part in parts]),
        )
        return round_successively(values, start, self._dependence(inputs, matrix.scaling.columns))

    def close(self) -> None:
        """Forget all inputs."""
        self._inputs.close()
        self._last = None

    def _dependence(self, inputs: Float32, scales: Float32 | None) -> Dependence:
        """Return that of the matrix before, if it was multiplied with the same."""
        if self._last is not None:
            before, divided, found = self._last
            if before is inputs and _equal(divided, scales):
                return found
        self._last = None  # not two at once
        found = dependence(inputs, scales)
        self._last = inputs, scales, found
        return found


def _equal(one: Float32 | None, other: Float32 | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)
