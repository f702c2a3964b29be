"""Where the numbers of a weight lie: panels of 16 output rows, each with its scales inline.

A panel format lays out a matrix ``[N, K]`` with N padded to 16 and K padded to 32. Panels are
contiguous; every field starts 32-byte aligned.

Grouped formats
    Groups along K, each the group's codes and then a tail; after the groups, 16 float32 row
    constants. Codes are numbered from the lowest up: ``q + 8`` for ``i4``, ``q + 16`` for ``i5``,
    ``q + 32`` for ``i6``, the place among LEVELS, or what they are.

    The low four bits of all codes come first: for each 8 k a vector of 64 bytes, whose byte
    ``4r + i`` holds that of row r at ``k0 + i`` in its low and that at ``k0 + 4 + i`` in its high
    nibble. Behind them, of ``i5`` and ``u5``, one vector: byte ``4r + i`` has the fifth bit of the
    code at ``k0 + 4s + i`` as its bit s. Of ``i6`` one vector for each 16 k, whose byte ``4r + i``
    has the upper two bits of the code at ``k0 + 4s + i`` as its bits 2s and 2s + 1. ``i8`` has
    whole bytes, for each four k ``[16 rows][4 k]``.

    What else there is, as vectors of the 16 rows:

    ==================  ==================================  ==========================
    scale, minimum      header of a frame of groups         tail of a group
    ==================  ==================================  ==========================
    ``f16``, none       (a frame is one group)              fp16 scales
    ``f16``, ``f16``    (a frame is one group)              fp16 scales, fp16 minima
    ``f16``, ``zero``   zeros of two groups, uint8          fp16 scales
    ``e8m0``, none      scales of two groups, uint8
    ``q8``, ``q8``      fp16 factors of scales, minima;     uint8 scales, uint8 minima
                        a frame is 256 columns
    ``s8``, none        fp16 factors of scales; int8
                        scales of the frame's groups; a
                        frame is 256 columns
    ==================  ==================================  ==========================

    Where a frame has two groups and their number is odd, the last frame has one group, and room
    for two in its header.
``i8`` without groups
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

# Bits of a code -> k whose bits above the fourth share a word of a row.
PLANES = {5: 32, 6: 16}

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
    if k % format_.columns:
        raise ProgramError(
            f"weight format {format_.name!r} needs K divisible by {format_.columns}, got {k}"
        )
    size, scale, minimum = format_.group, format_.scale, format_.minimum
    group: list[Any] = [("words", np.uint32, (size // (4 if format_.bits == 8 else 8), PANEL))]
    if format_.bits in PLANES:
        group.append(("planes", np.uint32, (size // PLANES[format_.bits], PANEL)))
    header: list[Any] = []
    together = 1
    if scale in ("f16", "q8"):
        small = "u1" if scale == "q8" else "<f2"
        group.append(("scales", small, (PANEL,)))
        if minimum in ("f16", "q8"):
            group.append(("minima", small, (PANEL,)))
    if format_.has_factors:
        together = SUPER // size
        header.append(("factors", "<f2", (PANEL,)))
        if minimum == "q8":
            header.append(("minimum_factors", "<f2", (PANEL,)))
    elif minimum == "zero" or scale == "e8m0":
        together = 2
    if minimum == "zero":
        header.append(("zeros", "u1", (together, PANEL)))
    if scale in ("e8m0", "s8"):
        header.append(("scales", "u1" if scale == "e8m0" else "i1", (together, PANEL)))
    frames, rest = divmod(k // size, together)
    whole = np.dtype([*header, ("groups", group, (together,))])
    part = np.dtype([*header, ("groups", group, (rest,))])
    return np.dtype([("frames", whole, (frames,)), ("last", part, (min(rest, 1),)), _ROW_CONSTANTS])
