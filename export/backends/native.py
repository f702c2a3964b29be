"""The native core's ahead-of-time half: it takes the whole operator set and all panel formats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_llm.export.weights.prepared import FloatWeight, PreparedWeight
from edge_llm.program import pack as panels
from edge_llm.program.formats import WEIGHT_FORMATS, WeightFormat
from edge_llm.program.ops import OPS

name = "native"
operators = frozenset(OPS)
formats = frozenset(form for form in WEIGHT_FORMATS.values() if form.is_panel)
row_multiple = 16  # rows of a panel: panels are contiguous and know nothing of each other


def packed_bytes(form: WeightFormat, n: int, k: int) -> int:
    """Return the bytes of a packed matrix [n, k]."""
    return panels.packed_bytes(form, n, k)


def pack(weight: PreparedWeight) -> NDArray[np.uint8]:
    """Return panels of 16 rows; see program.pack for the layouts."""
    if isinstance(weight, FloatWeight):
        return panels.pack_float(weight.values, weight.format)
    return panels.pack_integers(weight)
