"""Where the numbers of a weight lie: panels of 16 output rows, each with its scales inline.

A panel format lays out a matrix ``[N, K]`` with N padded to 16 and K padded to 32. Panels are
contiguous; every field starts 32-byte aligned.

``i4``, ``u4``
    Groups along K, each ``group / 32`` blocks of 256 bytes and then a tail; after the groups, 16
    float32 row constants. A block holds 32 k in eight vectors of 32 bytes: for ``c = 0..3`` rows
    0-7, then rows 8-15. Byte ``4r + i`` of the vector for c holds the code of row r at
    ``k0 + 8c + i`` in its low and that at ``k0 + 8c + 4 + i`` in its high nibble; ``i4`` stores the
    code plus 8. What else there is, as vectors of the 16 rows:

    ==================  ================================  ==========================
    scale, minimum      header of a frame of groups       tail of a group
    ==================  ================================  ==========================
    ``f16``, none       (a frame is one group)            fp16 scales
    ``f16``, ``f16``    (a frame is one group)            fp16 scales, fp16 minima
    ``f16``, ``zero``   zeros of two groups, uint8        fp16 scales
    ``q8``, ``q8``      fp16 factors of scales, minima;   uint8 scales, uint8 minima
                        a frame is 256 columns
    ==================  ================================  ==========================

    With ``zero`` and an odd number of groups the last frame has one group.
``i8``
    For each four k, 64 bytes ``[16 rows][4 k]``; then 16 float32 scales; then 16 float32 row
    constants.
``f32 | f16 | bf16``
    For each k, the 16 values of the rows.

A row constant is the sum of the row's weights before any rounding, computed in float64 and rounded
once: with it a kernel removes the zero point of an activation in one multiply-add
(docs/quantization.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_llm.errors import ProgramError
from edge_llm.program.formats import SUPER, WeightFormat

PANEL = 16  # output rows of a panel: the 16 float lanes of every kernel
BLOCK = 32  # k of a block

# The largest K for which an int8 dot product, at most 127 * 128 a term, fits 32 bits.
MAX_I8_K = (2**31 - 1) // (127 * 128)

_FLOATS = {"f32": "<f4", "f16": "<f2", "bf16": "<u2"}
_ROW_CONSTANTS = ("constants", "<f4", (PANEL,))


def packed_bytes(format_: WeightFormat, n: int, k: int) -> int:
    """Return the size in bytes of an ``[n, k]`` weight packed as ``format_``.

    Raises:
        ProgramError: the format has no panels, or none of this shape.
    """
    return panel_count(n) * panel_dtype(format_, n, k).itemsize


def panel_count(n: int) -> int:
    """Return the number of panels of ``n`` rows."""
    return -(-n // PANEL)


def panel_dtype(format_: WeightFormat, n: int, k: int) -> np.dtype[np.void]:
    """Return the layout of one panel of an ``[n, k]`` weight as a structured dtype.

    Floats have ``values``, int8 ``words``, ``scales`` and ``constants``. Grouped formats have
    ``frames`` and ``last``, see `group_parts`, and ``constants``.

    Raises:
        ProgramError: the format has no panels, or none of this shape.
    """
    if not format_.is_panel:
        raise ProgramError(f"weight format is {format_}, expected one that has panels")
    if n < 1 or k < 1:
        raise ProgramError(f"weight shape is [{n}, {k}], expected positive sizes")
    if format_.group:
        return _grouped(format_, k)
    depth = -(-k // BLOCK) * BLOCK
    if format_.code == "i8":
        if k > MAX_I8_K:
            raise ProgramError(f"weight format 'i8' takes K up to {MAX_I8_K}, got {k}")
        words = ("words", np.uint32, (depth // 4, PANEL))
        return np.dtype([words, ("scales", "<f4", (PANEL,)), _ROW_CONSTANTS])
    return np.dtype([("values", _FLOATS[format_.code], (depth, PANEL))])


def _grouped(format_: WeightFormat, k: int) -> np.dtype[np.void]:
    divisor = SUPER if format_.scale == "q8" else format_.group
    if k % divisor:
        raise ProgramError(
            f"weight format {format_.name!r} needs K divisible by {divisor}, got {k}"
        )
    small = "u1" if format_.scale == "q8" else "<f2"
    group: list[Any] = [
        ("words", np.uint32, (format_.group // BLOCK, 4, 2, PANEL // 2)),
        ("scales", small, (PANEL,)),
    ]
    if format_.minimum in ("f16", "q8"):
        group.append(("minima", small, (PANEL,)))
    header: list[Any] = []
    together = 1
    if format_.minimum == "q8":
        together = SUPER // format_.group
        header = [("factors", "<f2", (PANEL,)), ("minimum_factors", "<f2", (PANEL,))]
    elif format_.minimum == "zero":
        together = 2
        header = [("zeros", "u1", (together, PANEL))]
    frames, rest = divmod(k // format_.group, together)
    whole = np.dtype([*header, ("groups", group, (together,))])
    part = np.dtype([*header, ("groups", group, (rest,))])
    return np.dtype([("frames", whole, (frames,)), ("last", part, (min(rest, 1),)), _ROW_CONSTANTS])
