"""Quantized and plain weights between the quantize, eager and pack stages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_llm.program.formats import WeightFormat
from edge_llm.program.integers import Integers

# 8 MiB of float32: small beside any model, large enough to make Python's part negligible.
CHUNK_ELEMENTS = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FloatWeight:
    """A matrix ``values`` float32 [N, K], already rounded to the ``format`` that stores it."""

    format: WeightFormat
    values: NDArray[np.float32]  # (N, K)

    def dequantize(self) -> NDArray[np.float32]:
        """Return the values themselves."""
        return self.values


PreparedWeight = Integers | FloatWeight


def row_chunks(
    n: int, k: int, *, multiple: int = 1, elements: int = CHUNK_ELEMENTS
) -> Iterator[slice]:
    """Yield slices of the rows of a matrix [n, k], each a multiple of ``multiple`` but the last,
    and of at most ``elements`` unless that is less than ``multiple`` rows."""
    rows = max(elements // k // multiple, 1) * multiple
    for begin in range(0, n, rows):
        yield slice(begin, min(begin + rows, n))


def spread(count: int, most: int) -> NDArray[np.int64]:
    """Return at most ``most`` of the numbers below ``count``, evenly spread."""
    taken = min(count, most)
    return np.arange(taken, dtype=np.int64) * count // taken
