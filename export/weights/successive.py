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
    if scales is not None:
        inputs = inputs / scales
    squares = np.einsum("tk,tk->k", inputs, inputs, dtype=np.float64)
    order = np.argsort(-squares, kind="stable")
    backward = inputs[:, order[::-1]]
    square = backward.T @ backward
    del backward, inputs
    square[np.diag_indices_from(square)] += max(DAMPING * squares.mean(), np.finfo(np.float32).tiny)
    lower = np.linalg.cholesky(square)
    del square
    upper = lower[::-1, ::-1]
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
    _, low, high = CODE_RANGES[form.code]
    wanted = np.ascontiguousarray(rows.T[how.order])
    groups = how.order // form.group
    scales = np.ascontiguousarray(scales.T)
    inverse = np.float32(1.0) / scales
    off, moved = np.empty_like(wanted), wanted.copy()
    codes = np.empty(wanted.shape, np.int8)

    def go(begin: int, end: int) -> None:
        if end - begin > _LEAF:
            middle = (begin + end) // 2
            go(begin, middle)
            moved[middle:end] += how.upper[begin:middle, middle:end].T @ off[begin:middle]
            go(middle, end)
            return
        for j in range(begin, end):
            code = np.rint(moved[j] * inverse[groups[j]]).clip(low, high)
            codes[j] = code
            off[j] = wanted[j] - code * scales[groups[j]]
            moved[j + 1 : end] += how.upper[j, j + 1 : end, None] * off[j]

    go(0, len(wanted))
    result = np.empty(rows.shape, np.int8)
    result[:, how.order] = codes.T
    return result
