"""The native core's ahead-of-time half: it takes the whole operator set and all panel formats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_llm.export.weights import PreparedWeight, QuantizedWeight
from edge_llm.program import pack as panels
from edge_llm.program.formats import WEIGHT_FORMATS, WeightFormat
from edge_llm.program.ops import OPS

name = "native"
operators = frozenset(OPS)
formats = frozenset(panels.PANEL_FORMATS)
row_multiple = 16  # rows of a panel: panels are contiguous and know nothing of each other


def packed_bytes(weight_format: WeightFormat, n: int, k: int) -> int:
    """Bytes of a packed matrix [n, k]."""
    return panels.packed_bytes(weight_format, n, k)


def pack(weight: PreparedWeight) -> NDArray[np.uint8]:
    """Panels of 16 rows; see program.pack for the layouts."""
    if not isinstance(weight, QuantizedWeight):
        return panels.pack_float(weight.values.numpy(), WEIGHT_FORMATS[weight.format])
    q, scales = weight.q.numpy(), weight.scales.numpy()
    if weight.format == "i8":
        return panels.pack_int8(q, scales)
    return panels.pack_int4(q, scales, weight.group)
