"""The matrix of the operator `hadamard` that is not Sylvester's, and the sizes that there are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ORDER = 28
_PRIME = ORDER // 2 - 1


def has_transform(size: int) -> bool:
    """Tell whether the operator takes rows of so many columns: 2^k or 28 * 2^k, in whole 64."""
    return size > 0 and size % 64 == 0 and ORDER * 2**22 % size == 0


def order_of(size: int) -> int:
    """Return the order of the matrix whose Kronecker product with Sylvester's transforms rows of
    ``size`` columns: 28, or 1 where Sylvester's is all."""
    return ORDER if size & (size - 1) else 1


def paley_matrix() -> NDArray[np.float32]:
    """Return the matrix of order 28, of 1 and -1, that SpinQuant folds into checkpoints.

    It is Paley's second construction for the field of 13 (Journal of Mathematics and Physics 12,
    1933): [C + I, C - I; C - I, -C - I] with C = [0 1; 1 Q], where Q holds 1 at (i, j) if j - i is
    a square other than 0 modulo 13, -1 if it is none, and 0 on the diagonal.
    """
    residues = np.full(_PRIME, -1.0, np.float32)
    residues[np.arange(1, _PRIME) ** 2 % _PRIME] = 1.0
    residues[0] = 0.0
    places = np.arange(_PRIME)
    c = np.ones((_PRIME + 1, _PRIME + 1), np.float32)
    c[0, 0] = 0.0
    c[1:, 1:] = residues[(places - places[:, None]) % _PRIME]
    unit = np.eye(_PRIME + 1, dtype=np.float32)
    return np.block([[c + unit, c - unit], [c - unit, -c - unit]])
