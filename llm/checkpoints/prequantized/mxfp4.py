"""MXFP4 as gpt-oss checkpoints lay it out (``quant_method`` "mxfp4").

A parameter NAME with rows of K weights is two uint8 tensors: ``NAME_blocks`` [.., K / 32, 16],
whose bytes hold two neighbouring weights, the first in the low nibble, and ``NAME_scales``
[.., K / 32], the exponent of each 32 weights plus 127. Leading dimensions are rows: of experts
[E, N]. (GGUF files put the weights of a byte 16 apart; `gguf.integers` reads those.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import CheckpointError, ExportError
from edge_llm.program.formats import LEVELS, WEIGHT_FORMATS
from edge_llm.program.integers import Integers

GROUP = 32  # weights that share a scale
_LEVELS = np.array(LEVELS["e2m1"], np.int8)


def mxfp4_integers(name: str, blocks: NDArray[np.uint8], scales: NDArray[np.uint8]) -> Integers:
    """Return the rows of a parameter, [rows, K], of experts one after the other.

    Raises:
        CheckpointError: shapes or types that do not belong together, or scales beyond what
            weights in float32 can have.
    """
    got = f"{blocks.dtype} {list(blocks.shape)} with scales {scales.dtype} {list(scales.shape)}"
    if (
        blocks.dtype != np.uint8
        or scales.dtype != np.uint8
        or blocks.ndim < 3
        or blocks.shape != (*scales.shape, GROUP // 2)
        or blocks.size == 0
    ):
        raise CheckpointError(
            f"{name}: got blocks {got}, expected uint8 [.., K / {GROUP}, {GROUP // 2}] with "
            "as many scales as blocks"
        )
    fields = np.stack((blocks & np.uint8(15), blocks >> np.uint8(4)), axis=-1)
    groups = scales.shape[-1]
    codes = _LEVELS[fields.reshape(-1, groups * GROUP)]
    try:
        return Integers(WEIGHT_FORMATS["e2m1g32"], codes, scales.reshape(-1, groups))
    except ExportError as exc:
        raise CheckpointError(f"{name}: {exc}") from exc
