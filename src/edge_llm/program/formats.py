"""The form of a stored weight: one small type for recipe, export, file, oracle, cost and core.

A weight in groups stands for ``scale * code + minimum`` along each row, with one scale and minimum
for every ``group`` columns:

========  =========  ==========================================================================
code      values     weight
========  =========  ==========================================================================
``i4``    -8 .. 7    ``scale * code``
``u4``    0 .. 15    by ``minimum``: ``scale * code + minimum`` (``f16``),
                     ``(d * scale) * code - (dmin * minimum)`` (``q8``),
                     ``scale * (code - minimum)`` (``zero``)
``i8``    -127..127  ``scale * code``, one scale a row
floats               the code itself
========  =========  ==========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

Code = Literal["f32", "f16", "bf16", "i8", "i4", "u4"]
# f32, f16: one such number a group; q8: an unsigned byte a group, times an fp16 factor for each
# SUPER columns.
Scale = Literal["none", "f32", "f16", "q8"]
# f16: one such number a group; q8: as the scale, subtracted; zero: an unsigned byte a group, the
# code that stands for 0, which may be none of the codes.
Minimum = Literal["none", "f16", "q8", "zero"]
# panel: 16 rows side by side as `program.pack` lays them out; raw: plain little-endian numbers.
Layout = Literal["panel", "raw"]

# The choices in the order of their numbers in the native ABI.
CODES: tuple[Code, ...] = get_args(Code)
SCALES: tuple[Scale, ...] = get_args(Scale)
MINIMA: tuple[Minimum, ...] = get_args(Minimum)
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

SUPER = 256  # columns that share the fp16 factors of "q8" scales and minima


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How the numbers of one weight are stored.

    Attributes:
        code: the type of a stored number.
        group: columns that share a scale and a minimum; 0: the whole row, or no scale at all.
        scale: the type of the scales.
        minimum: the type of what is added to a scaled code, or of the code that stands for 0.
        layout: how the numbers lie in the file.
    """

    code: Code
    group: int = 0
    scale: Scale = "none"
    minimum: Minimum = "none"
    layout: Layout = "panel"

    @property
    def name(self) -> str:
        """The format's short name for people and recipes, a key of `WEIGHT_FORMATS`."""
        return _NAMES[self]

    @property
    def is_float(self) -> bool:
        """Tell whether the stored numbers are floats, which no scale belongs to."""
        return self.code in ("f32", "f16", "bf16")

    @property
    def is_four_bit(self) -> bool:
        """Tell whether the codes have four bits."""
        return self.code in ("i4", "u4")

    def fitting(self, k: int) -> WeightFormat | None:
        """Return the format for rows of ``k`` columns: this one if its groups divide them, else for
        symmetric int4 the largest group that does; None if there is none."""
        if k % (SUPER if self.scale == "q8" else self.group or 1) == 0:
            return self
        if self.code != "i4":
            return None
        sizes = (size for size in (128, 64, 32) if k % size == 0)
        return next((replace(self, group=size) for size in sizes), None)

    @property
    def is_panel(self) -> bool:
        """Tell whether a matrix is stored in panels, as `linear` and `embedding` take it."""
        return self.layout == "panel"


# Every format that a program may hold, by name.
WEIGHT_FORMATS: dict[str, WeightFormat] = {
    "f32": WeightFormat("f32"),
    "f16": WeightFormat("f16"),
    "bf16": WeightFormat("bf16"),
    "i8": WeightFormat("i8", 0, "f32"),
    "i4g32": WeightFormat("i4", 32, "f16"),
    "i4g64": WeightFormat("i4", 64, "f16"),
    "i4g128": WeightFormat("i4", 128, "f16"),
    "u4g32m": WeightFormat("u4", 32, "f16", "f16"),  # GGUF Q4_1
    "u4g32k": WeightFormat("u4", 32, "q8", "q8"),  # GGUF Q4_K
    "u4g32z": WeightFormat("u4", 32, "f16", "zero"),  # AWQ, GPTQ
    "u4g64z": WeightFormat("u4", 64, "f16", "zero"),
    "u4g128z": WeightFormat("u4", 128, "f16", "zero"),
    "raw_f32": WeightFormat("f32", layout="raw"),  # norms, biases, tables
}
_NAMES = {format_: name for name, format_ in WEIGHT_FORMATS.items()}
RAW_F32 = WEIGHT_FORMATS["raw_f32"]
