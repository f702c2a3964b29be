"""Multiply columns and rows of parameters with the orthogonal matrices that are folded into them
(lowering/rotations.py).

That of n columns is R = S H / sqrt(n): H is the Kronecker product of a Paley matrix, of the least
order that there is, with Sylvester's Hadamard matrix, and S has random signs on its diagonal, which
follow from n. All of it is sums of float32 in a fixed order, one after the other, so that every
machine gets the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from edge_llm.llm.checkpoints.arrays import Array, to_float32
from edge_llm.llm.checkpoints.detached import detached, detached_rows
from edge_llm.program.hadamard import least_order, paley_matrix

Float32 = NDArray[np.float32]

_BLOCK = 2**17  # elements that are summed at a time: they stay in a core's cache


@dataclass(frozen=True, slots=True)
class Rotated:
    """A matrix ``values`` [N, K] of which each run of ``size`` columns is multiplied with R, as its
    rows are read, and before that all columns with ``norm`` float32 [K], if there is one."""

    values: Array
    size: int
    norm: Float32 | None = None

    def rows(self, index: slice | NDArray[np.int64]) -> Float32:
        """Return some rows in float32.

        Raises:
            CheckpointError: the file of ``values`` was cut short.
        """
        values = to_float32(detached_rows(self.values, index))
        return rotated_columns(values if self.norm is None else values * self.norm, self.size)


def rotated_columns(values: Float32, size: int) -> Float32:
    """Return ``values`` float32 [N, K] with each run of ``size`` columns multiplied with R."""
    result = np.empty(values.shape, np.float32)
    step = max(_BLOCK // size, 1)
    for first in range(0, values.shape[1], size):
        for begin in range(0, len(values), step):
            place = slice(begin, begin + step), slice(first, first + size)
            result[place] = _turned(values[place].T).T
    return result


def rotated_rows(values: Array, begin: int, end: int, size: int) -> Float32:
    """Return a copy of ``values`` [N, K] or [N] in float32 in which each run of ``size`` rows from
    ``begin`` to ``end`` is multiplied with the transpose of R, from the left.

    Raises:
        CheckpointError: the file of ``values`` was cut short.
    """
    result = np.array(to_float32(detached(values)), np.float32, order="C")
    matrix = result.reshape(len(result), -1)
    step = max(_BLOCK // size, 1)
    for first in range(begin, end, size):
        for column in range(0, matrix.shape[1], step):
            place = slice(first, first + size), slice(column, column + step)
            matrix[place] = _turned(matrix[place])
    return result


def _turned(values: Float32) -> Float32:
    """Return the transpose of R times ``values`` float32 [n, M]."""
    size, count = values.shape
    made = np.ascontiguousarray(values) * _signs(size)[:, None]
    order = least_order(size)
    assert order is not None
    half = 1
    while half < size // order:
        pairs = made.reshape(-1, 2, half, count)
        sums = np.empty_like(pairs)
        np.add(pairs[:, 0], pairs[:, 1], out=sums[:, 0])
        np.subtract(pairs[:, 0], pairs[:, 1], out=sums[:, 1])
        made, half = sums, 2 * half
    return made.reshape(size, count) if order == 1 else _paley(made.reshape(order, -1), count)


def _paley(parts: Float32, count: int) -> Float32:
    """Return the transpose of a Paley matrix times ``parts`` float32 [order, M], as [n, count]."""
    signs = _paley_signs(len(parts))
    result = np.zeros_like(parts)
    for column, sums in enumerate(result):
        for part, positive in zip(parts, signs[:, column].tolist(), strict=True):
            (np.add if positive else np.subtract)(sums, part, out=sums)
    return result.reshape(-1, count)


@cache
def _paley_signs(order: int) -> NDArray[np.bool_]:
    return paley_matrix(order) > 0.0


@cache
def _signs(size: int) -> Float32:
    """Return the diagonal of S, divided by the square root of the size."""
    positive = np.random.PCG64(size).random_raw(size) >> np.uint64(63)
    factors: Float32 = (2.0 * positive - 1.0).astype(np.float32) / np.sqrt(np.float32(size))
    return factors
