"""The form of a stored weight: one small type for recipe, export, file, oracle, cost and core.

A weight in groups stands for ``scale * code + minimum`` along each row, with one scale and minimum
for every ``group`` columns:

=========  ===================  ================================================================
code       values               weight
=========  ===================  ================================================================
``i4``     -8 .. 7              ``scale * code``
``i5``     -16 .. 15            the same
``i6``     -32 .. 31            the same
``i8``     -127 .. 127          the same, one scale a row or a group
``e2m1``   those of LEVELS      the same
``nl4``    those of LEVELS      the same
``u4``     0 .. 15              by ``minimum``: ``scale * code + minimum`` (``f16``),
                                ``(d * scale) * code - (dmin * minimum)`` (``q8``),
                                ``scale * (code - minimum)`` (``zero``)
``u5``     0 .. 31              the same
floats                          the code itself
=========  ===================  ================================================================

where ``scale`` is a float; ``d * scale`` for ``q8`` and ``s8``; ``2 ** (scale - 128)`` for
``e8m0``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

Code = Literal["f32", "f16", "bf16", "i8", "i4", "u4", "e2m1", "nl4", "i5", "u5", "i6"]
# f32, f16: one such number a group; q8, s8: an unsigned or a signed byte a group, times an fp16
# factor for each SUPER columns; e8m0: a byte a group that is an exponent.
Scale = Literal["none", "f32", "f16", "q8", "e8m0", "s8"]
# f16: one such number a group; q8: as the scale, subtracted; zero: an unsigned byte a group, the
# code that stands for 0, which may be none of the codes.
Minimum = Literal["none", "f16", "q8", "zero"]
# panel: 16 rows side by side as `program.pack` lays them out; raw: plain little-endian numbers.
Layout = Literal["panel", "raw"]

# How rows of x become int8 for a matrix of integers: each with one scale and zero point, or with a
# scale for every RUN columns.
Activations = Literal["token", "group"]

# The choices in the order of their numbers in the native ABI.
CODES: tuple[Code, ...] = get_args(Code)
SCALES: tuple[Scale, ...] = get_args(Scale)
MINIMA: tuple[Minimum, ...] = get_args(Minimum)
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
ACTIVATIONS: tuple[Activations, ...] = get_args(Activations)

RUN = 32  # columns of x that share a scale where activations are rounded by group
SUPER = 256  # columns that share the fp16 factors of "q8" and "s8" scales and "q8" minima

_BITS: dict[Code, int] = {
    "f32": 32,
    "f16": 16,
    "bf16": 16,
    "i8": 8,
    "i4": 4,
    "u4": 4,
    "e2m1": 4,
    "nl4": 4,
    "i5": 5,
    "u5": 5,
    "i6": 6,
}
# What the 16 fields of a code that is no number itself stand for: twice the numbers of a 4-bit
# float with two bits of exponent (MX), and the levels of ggml's IQ4, denser around zero.
LEVELS: dict[Code, tuple[int, ...]] = {
    "e2m1": (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12),
    "nl4": (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113),
}


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
    def bits(self) -> int:
        """The bits of a code."""
        return _BITS[self.code]

    @property
    def is_made(self) -> bool:
        """Tell whether floats are rounded to it; others are taken over from checkpoints."""
        return self.is_float or self.code == "i4" or self.name in ("i6g32", "i8")

    @property
    def has_factors(self) -> bool:
        """Tell whether SUPER columns share an fp16 factor of their scales."""
        return self.scale in ("q8", "s8")

    @property
    def columns(self) -> int:
        """The columns of which a row must have a multiple."""
        return SUPER if self.has_factors else self.group or 1

    def fitting(self, k: int) -> WeightFormat | None:
        """Return the format for rows of ``k`` columns: this one if its groups divide them, else for
        symmetric int4 the largest group that does, for int6 ``i8``; None if there is none."""
        if k % self.columns == 0:
            return self
        if self.is_made and self.code == "i6":
            return WEIGHT_FORMATS["i8"]
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
    "i8g32": WeightFormat("i8", 32, "f16"),  # GGUF Q8_0
    "e2m1g32": WeightFormat("e2m1", 32, "e8m0"),  # MXFP4
    "nl4g32": WeightFormat("nl4", 32, "f16"),  # GGUF IQ4_NL
    "nl4g32k": WeightFormat("nl4", 32, "s8"),  # GGUF IQ4_XS
    "i5g32": WeightFormat("i5", 32, "f16"),  # GGUF Q5_0
    "u5g32m": WeightFormat("u5", 32, "f16", "f16"),  # GGUF Q5_1
    "u5g32k": WeightFormat("u5", 32, "q8", "q8"),  # GGUF Q5_K
    "i6g32": WeightFormat("i6", 32, "f16"),
    "i6g16k": WeightFormat("i6", 16, "s8"),  # GGUF Q6_K
    "raw_f32": WeightFormat("f32", layout="raw"),  # norms, biases, tables
}
_NAMES = {format_: name for name, format_ in WEIGHT_FORMATS.items()}
RAW_F32 = WEIGHT_FORMATS["raw_f32"]
