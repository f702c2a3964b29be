"""The matrix of the Hadamard transform, made in another way than by the operator."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_llm.program.hadamard import paley_matrix


def hadamard_matrix(size: int) -> NDArray[np.float64]:
    """Return the orthogonal matrix of 2^k or 28 * 2^k rows, of Kronecker products."""
    made, rest = np.ones((1, 1)), size
    if size & (size - 1):
        made, rest = paley_matrix().astype(np.float64), size // 28
    while rest > 1:
        made, rest = np.kron(made, np.array([[1.0, 1.0], [1.0, -1.0]])), rest // 2
    return made / np.sqrt(size)
