"""Factors of rows and columns that a parameter is multiplied with when it is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scaling:
    """``rows`` float32 [N] (of a vector its elements), ``columns`` float32 [K]; None: all one."""

    rows: Float32 | None = None
    columns: Float32 | None = None

    def times(self, other: Scaling) -> Scaling:
        """Return both in one."""
        return Scaling(_times(self.rows, other.rows), _times(self.columns, other.columns))

    def apply(self, values: Float32, rows: slice | NDArray[np.int64] = slice(None)) -> Float32:
        """Return these ``rows`` of a parameter, which are ``values``, scaled."""
        if self.rows is not None:
            factors = self.rows[rows]
            values = values * (factors if values.ndim == 1 else factors[:, None])
        if self.columns is not None:
            values = values * self.columns
        return values


def _times(one: Float32 | None, other: Float32 | None) -> Float32 | None:
    if one is None or other is None:
        return other if one is None else one
    return one * other
