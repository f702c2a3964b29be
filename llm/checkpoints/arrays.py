"""The arrays that readers return: numpy's, with bfloat16, which numpy lacks, as its bits in uint16.

No checkpoint stores a parameter as unsigned 16-bit integers, so that dtype always means bfloat16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BFLOAT16 = np.dtype(np.uint16)
FLOATS = (np.dtype(np.float32), np.dtype(np.float16), BFLOAT16)  # what parameters are stored in


def name_of(dtype: np.dtype[Any]) -> str:
    """Return the name of a parameter's dtype, for messages."""
    return "bfloat16" if dtype == BFLOAT16 else dtype.name


def to_float32(array: Array) -> NDArray[np.float32]:
    """Return a parameter's values as float32, exactly; the array itself where it is float32.

    ``array`` has one of the dtypes of ``FLOATS``, or holds integers of at most 8 bits."""
    if array.dtype == BFLOAT16:
        widened = array.astype(np.uint32)
        widened <<= 16
        return widened.view(np.float32)
    return array.astype(np.float32, copy=False)
