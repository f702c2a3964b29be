"""Hadamard matrices that are not Sylvester's, and the sizes that there are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ORDER = 28  # of the operator `hadamard`


def has_transform(size: int) -> bool:
    """Tell whether the operator takes rows of so many columns: 2^k or 28 * 2^k, in whole 64."""
    return size > 0 and size % 64 == 0 and ORDER * 2**22 % size == 0


def order_of(size: int) -> int:
    """Return the order of the matrix whose Kronecker product with Sylvester's transforms rows of
    ``size`` columns: 28, or 1 where Sylvester's is all."""
    return ORDER if size & (size - 1) else 1


def least_order(size: int) -> int | None:
    """Return the least order of a Paley matrix whose Kronecker product with Sylvester's has
    ``size`` columns, 1 where Sylvester's is all; None: there is none, as always unless ``size`` is
    1, 2 or a multiple of 4."""
    odd = size // (size & -size)
    if odd == 1:
        return 1
    order = 4 * odd
    while size % order == 0:
        if _second(order) or _first(order):
            return order
        order *= 2
    return None


def paley_matrix(order: int = ORDER) -> NDArray[np.float32]:
    """Return a matrix of 1 and -1 whose rows are orthogonal, for an order that `least_order` gives.
    That of order 28 is the one that SpinQuant folds into checkpoints.

    They are Paley's (Journal of Mathematics and Physics 12, 1933), for fields of a prime q. Q holds
    1 at (i, j) if j - i is a square other than 0 modulo q, -1 if it is none, and 0 on the diagonal.
    The second construction, for q of 1 modulo 4, has the order 2 q + 2: [C + I, C - I; C - I,
    -C - I] with C = [0 1; 1 Q]. The first, for q of 3 modulo 4, has q + 1: I + [0 1; -1 Q].
    """
    second = _second(order)
    prime = order // 2 - 1 if second else order - 1
    residues = np.full(prime, -1.0, np.float32)
    residues[np.arange(1, prime) ** 2 % prime] = 1.0
    residues[0] = 0.0
    places = np.arange(prime)
    c = np.ones((prime + 1, prime + 1), np.float32)
    c[0, 0] = 0.0
    c[1:, 1:] = residues[(places - places[:, None]) % prime]
    unit = np.eye(prime + 1, dtype=np.float32)
    if second:
        return np.block([[c + unit, c - unit], [c - unit, -c - unit]])
    c[1:, 0] = -1.0
    return c + unit


def _second(order: int) -> bool:
    """Tell whether Paley's second construction has this order."""
    return order % 4 == 0 and (order // 2 - 1) % 4 == 1 and _is_prime(order // 2 - 1)


def _first(order: int) -> bool:
    return order % 4 == 0 and _is_prime(order - 1)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % factor for factor in range(2, int(number**0.5) + 1))
