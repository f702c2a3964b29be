"""Factorize large symmetric matrices in little memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK = 256  # columns
_STRIP = 1024  # rows that are changed at a time


def factorize(square: NDArray[np.float32]) -> None:
    """Replace the lower half of a symmetric, positive definite ``square`` float32 [K, K] by its
    Cholesky factor L, with L L^T = ``square``; what is above the diagonal means nothing then.

    The right-looking algorithm by blocks (Golub and Van Loan, Matrix Computations, 4.2.9). It takes
    a few blocks of memory beside the matrix, where numpy's takes three matrices of float64.

    Raises:
        numpy.linalg.LinAlgError: it is not positive definite.
    """
    size = len(square)
    for begin in range(0, size, _BLOCK):
        end = min(begin + _BLOCK, size)
        lower = np.linalg.cholesky(square[begin:end, begin:end].astype(np.float64))
        square[begin:end, begin:end] = lower
        below = square[end:, begin:end]
        below[:] = below @ np.linalg.inv(lower).T.astype(np.float32)
        for first in range(0, size - end, _STRIP):
            last = min(first + _STRIP, size - end)
            square[end + first : end + last, end : end + last] -= below[first:last] @ below[:last].T
