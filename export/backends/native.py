"""The native core's ahead-of-time half: it takes the whole operator set and all panel formats."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import ExportError
from edge_llm.export.weights import PreparedWeight, QuantizedWeight
from edge_llm.program import pack as panels
from edge_llm.program.formats import WEIGHT_FORMATS, WeightFormat
from edge_llm.program.integers import Integers
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
    form = WEIGHT_FORMATS[weight.format]
    scales = weight.scales.numpy()
    stored = scales if form.scale == "f32" else scales.astype(np.float16)
    if not np.array_equal(stored.astype(np.float32), scales):
        raise ExportError("int4 scales are not fp16 values; round them before q is chosen")
    return panels.pack_integers(Integers(form, weight.q.numpy(), stored))
