"""Copies of a program's own matrices, which adapters bring along."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_llm.program.pack import PANEL, dequantize
from edge_llm.program.plan import Weight
from edge_llm.runner.adapters.adapter import Float32
from edge_llm.runner.adapters.parameters import Part

_NEAR = 0.3  # of the size of a matrix: farther from it is no rounding, but another matrix
_COMPARED = 64  # panels of a matrix that are looked at


def is_near(copy: Float32, data: NDArray[np.uint8], weight: Weight, part: Part) -> bool:
    """Return whether ``copy`` [rows, columns] is what ``part`` of a weight, whose packed bytes are
    ``data``, holds rounded; by some of its rows."""
    panels = data.reshape(-(-weight.shape[0] // PANEL), -1)
    count = -(-part.rows // PANEL)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _COMPARED)).astype(np.int64))
    own = dequantize(
        np.ascontiguousarray(panels[part.begin // PANEL + chosen]).reshape(-1),
        weight.format,
        len(chosen) * PANEL,
        part.columns,
    )
    rows = (chosen[:, None] * PANEL + np.arange(PANEL)).reshape(-1)
    own, there = own[rows < part.rows], copy[rows[rows < part.rows]]
    size, apart = (np.square(values, dtype=np.float64).sum() for values in (own, there - own))
    return bool(apart <= _NEAR**2 * size)
