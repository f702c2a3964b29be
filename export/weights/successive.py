"""Round the columns of a matrix one after another, so that each makes up for those before (GPTQ).

What rounding a row w to q does to its products with inputs X [T, K] has the square e H e^T, where e
is w - q and H = X^T X. With the triangular R of H = R R^T, whose upper half is not zero, that is
|e R|^2, and column j of e R has the errors up to that of j alone:

    (e R)[j] = e[j] R[j, j] + sum of e[i] R[i, j] over i < j

So q[j], once the columns before are chosen, is best where that is 0, and rounded from

    w[j] + sum of e[i] R[i, j] / R[j, j] over i < j

This is what GPTQ (Frantar et al. 2022, arXiv:2210.17323) computes with the Cholesky factor of the
inverse of H, which is the inverse of R; here nothing is inverted. Columns come in the order of
their mean square, largest first, while groups stay as they are and their scales are chosen before
("activation order with static groups"). A part of the mean of H's diagonal is added to it: a few
thousand tokens say little of how thousands of columns go together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_llm.export.weights.triangular import factorize
from edge_llm.program.formats import WeightFormat
from edge_llm.program.integers import CODE_RANGES, Integers

Float32 = NDArray[np.float32]

DAMPING = 0.3  # of the mean of the diagonal
_LEAF = 16  # columns that are rounded one by one
_ROWS = 4096  # of a matrix at a time


@dataclass(frozen=True, slots=True)
class Dependence:
    """How columns go together: their ``order`` [K], and for it ``upper`` float32 [K, K], which has
    R[i, j] / R[j, j] above its diagonal."""

    order: NDArray[np.int64]
    upper: Float32


def dependence(inputs: Float32, scales: Float32 | None = None) -> Dependence:
    """Return how the columns of ``inputs`` float32 [T, K], divided by ``scales`` float32 [K], go
    together."""
    squares = np.einsum("tk,tk->k", inputs, inputs, dtype=np.float64)
    if scales is not None:
        squares /= np.square(scales, dtype=np.float64)
    order = np.argsort(-squares, kind="stable")
    backward = inputs[:, order[::-1]]
    if scales is not None:
        backward /= scales[order[::-1]]
    square = backward.T @ backward
    del backward
    square[np.diag_indices_from(square)] += max(DAMPING * squares.mean(), np.finfo(np.float32).tiny)
    factorize(square)
    upper = square[::-1, ::-1]
    upper /= np.diagonal(upper).copy()
    return Dependence(order, upper)


def round_successively(rows: Float32, start: Integers, how: Dependence) -> Integers:
    """Return ``rows`` float32 [N, K] rounded with the scales of ``start``, which has them rounded
    each for itself."""
    form, codes = start.format, np.empty_like(start.codes)
    for begin in range(0, len(rows), _ROWS):
        part = slice(begin, begin + _ROWS)
        scales = start.scale[part].astype(np.float32)
        codes[part] = _codes(rows[part], scales, form, how)
    return Integers(form, codes, start.scale)


def _codes(rows: Float32, scales: Float32, form: WeightFormat, how: Dependence) -> NDArray[np.int8]:
    wanted = np.ascontiguousarray(rows.T[how.order])
    columns = _Columns(
        form,
        how.upper,
        groups=how.order // form.group,
        scales=np.ascontiguousarray(scales.T),
        wanted=wanted,
        off=np.empty_like(wanted),
        moved=wanted.copy(),
        codes=np.empty(wanted.shape, np.int8),
    )
    columns.round(0, len(wanted))
    result = np.empty(rows.shape, np.int8)
    result[:, how.order] = columns.codes.T
    return result


@dataclass(frozen=True, slots=True)
class _Columns:
    """Columns of a matrix in the order in which they are rounded, each a row [N] here: what is
    ``wanted``, how far it is ``off``, and where those before have ``moved`` it to; with the
    ``groups`` of the columns and the ``scales`` of the groups."""

    form: WeightFormat
    upper: Float32
    groups: NDArray[np.int64]
    scales: Float32
    wanted: Float32
    off: Float32
    moved: Float32
    codes: NDArray[np.int8]

    def round(self, begin: int, end: int) -> None:
        """Round the columns from ``begin`` to ``end``, which those before have moved."""
        if end - begin > _LEAF:
            middle = (begin + end) // 2
            self.round(begin, middle)
            self.moved[middle:end] += (
                self.upper[begin:middle, middle:end].T @ self.off[begin:middle]
            )
            self.round(middle, end)
            return
        _, low, high = CODE_RANGES[self.form.code]
        for j in range(begin, end):
            scale = self.scales[self.groups[j]]
            code = np.rint(self.moved[j] * (np.float32(1.0) / scale)).clip(low, high)
            self.codes[j] = code
            self.off[j] = self.wanted[j] - code * scale
            self.moved[j + 1 : end] += self.upper[j, j + 1 : end, None] * self.off[j]
