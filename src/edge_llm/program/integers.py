"""A matrix in an integer format, as the numbers of that format.

Checkpoint readers, the quantizer, packing, the oracle and the report pass matrices of integers to
each other in this one form, a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import ExportError
from edge_llm.program.formats import LEVELS, SUPER, Code, WeightFormat

CODE_RANGES: dict[Code, tuple[Any, int, int]] = {
    "i8": (np.int8, -127, 127),
    "i4": (np.int8, -8, 7),
    "u4": (np.uint8, 0, 15),
    "e2m1": (np.int8, min(LEVELS["e2m1"]), max(LEVELS["e2m1"])),
    "nl4": (np.int8, min(LEVELS["nl4"]), max(LEVELS["nl4"])),
    "i5": (np.int8, -16, 15),
    "u5": (np.uint8, 0, 31),
    "i6": (np.int8, -32, 31),
}
_SCALES = {
    "f32": np.float32,
    "f16": np.float16,
    "q8": np.uint8,
    "e8m0": np.uint8,
    "s8": np.int8,
}
_MINIMA = {"none": None, "f16": np.float16, "q8": np.uint8, "zero": np.uint8}
_LARGEST_EXPONENT = 252  # of e8m0: 12 * 2 ** (252 - 128) is finite in float32


def keeps_groups(format_: WeightFormat, index: NDArray[np.int64]) -> bool:
    """Tell whether columns in the order ``index`` stay together with those of their group."""
    size = format_.columns
    if len(index) % size:
        return False
    groups = index.reshape(-1, size)
    first = groups[:, :1]
    return bool((first % size == 0).all() and (groups == first + np.arange(size)).all())


@dataclass(frozen=True, slots=True)
class Integers:
    """A matrix [N, K] with G = K / group groups of columns (1 where a scale is the row's).

    Attributes:
        format: an integer format; `program.formats` says what its numbers stand for.
        codes: [N, K], uint8 for ``u4`` and ``u5``, else int8; of formats with LEVELS the levels.
        scale: [N, G] in the format's own type: float32, float16, int8 for ``s8``, uint8 for
            ``q8`` and ``e8m0``.
        minimum: [N, G] float16, or uint8 for ``q8`` and ``zero``; None where the format has none.
        factor: of ``q8`` and ``s8`` scales, float16 [N, K / SUPER]; else None.
        minimum_factor: of ``q8`` minima, float16 [N, K / SUPER]; else None.

    Raises:
        ExportError: numbers of another type or shape, beyond the format's range, or not finite.
    """

    format: WeightFormat
    codes: NDArray[Any]  # int8 or uint8
    scale: NDArray[Any]
    minimum: NDArray[Any] | None = None
    factor: NDArray[np.float16] | None = None
    minimum_factor: NDArray[np.float16] | None = None

    def __post_init__(self) -> None:
        form = self.format
        if form.is_float:
            raise ExportError(f"got integers in {form}, expected an integer format")
        dtype, low, high = CODE_RANGES[form.code]
        n, k = self.codes.shape if self.codes.ndim == 2 else (0, 0)
        if self.codes.dtype != dtype or n < 1 or k < 1:
            raise ExportError(
                f"codes are {self.codes.dtype} {list(self.codes.shape)}, "
                f"expected {np.dtype(dtype)} [N, K]"
            )
        if self.codes.min() < low or self.codes.max() > high:
            raise ExportError(
                f"codes of {form.code} span [{self.codes.min()}, {self.codes.max()}], "
                f"expected [{low}, {high}]"
            )
        if form.code in LEVELS and not _are_levels(self.codes, form.code):
            raise ExportError(f"codes of {form.code} have values that are none of its levels")
        if k % form.columns:
            raise ExportError(f"{form.name} needs columns in groups, got {k}")
        groups, supers = (n, k // (form.group or k)), (n, k // SUPER)
        _check("scale", self.scale, _SCALES[form.scale], groups)
        _check("minimum", self.minimum, _MINIMA[form.minimum], groups)
        _check("factor", self.factor, np.float16 if form.has_factors else None, supers)
        lifted = np.float16 if form.minimum == "q8" else None
        _check("minimum_factor", self.minimum_factor, lifted, supers)
        if form.scale == "e8m0" and self.scale.max() > _LARGEST_EXPONENT:
            raise ExportError(
                f"scale has exponents up to {self.scale.max()}, expected at most "
                f"{_LARGEST_EXPONENT}: weights beyond are not finite"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """N and K."""
        return self.codes.shape[0], self.codes.shape[1]

    def columns(self, index: NDArray[np.int64]) -> Integers:
        """Return the columns in another order, in which groups stay whole (`keeps_groups`)."""

        def taken(array: Any, size: int) -> Any:
            return None if array is None else array[:, index[::size] // size]

        group = self.format.group or len(index)
        return replace(
            self,
            codes=self.codes[:, index],
            scale=taken(self.scale, group),
            minimum=taken(self.minimum, group),
            factor=taken(self.factor, SUPER),
            minimum_factor=taken(self.minimum_factor, SUPER),
        )

    def joined(self, others: Sequence[Integers]) -> Integers:
        """Return these rows and those of ``others`` of the same format behind them."""

        def whole(name: str) -> Any:
            arrays = [getattr(part, name) for part in (self, *others)]
            return None if arrays[0] is None else np.concatenate(arrays)

        names = ("codes", "scale", "minimum", "factor", "minimum_factor")
        return replace(self, **{name: whole(name) for name in names})

    def rows(self, index: slice | NDArray[np.int64]) -> Integers:
        """Return some rows, which may be in another order: a slice, or int64 indices."""

        def taken(array: Any) -> Any:
            return None if array is None else array[index]

        return replace(
            self,
            codes=self.codes[index],
            scale=self.scale[index],
            minimum=taken(self.minimum),
            factor=taken(self.factor),
            minimum_factor=taken(self.minimum_factor),
        )

    def dequantize(self) -> NDArray[np.float32]:
        """Return the matrix in float32 [N, K], each value rounded once.

        All products are exact in float32, so that only the sum of a scaled code and a minimum
        rounds.
        """
        n, k = self.shape
        scale = self._scales()
        groups = self.codes.astype(np.float32).reshape(n, scale.shape[1], -1)
        if self.format.minimum == "zero":
            groups -= self._float(self.minimum, None)[:, :, None]
        groups *= scale[:, :, None]
        if self.format.minimum == "f16":
            groups += self._float(self.minimum, None)[:, :, None]
        elif self.format.minimum == "q8":
            groups -= self._float(self.minimum, self.minimum_factor)[:, :, None]
        return groups.reshape(n, k)

    def constants(self) -> NDArray[np.float32]:
        """Return the sum of each row's values before any rounding, [N] float32.

        The sums are made in float64, which holds every term exactly, and rounded once. It is what
        the zero point of an activation multiplies.

        Raises:
            ExportError: a sum that float32 cannot hold.
        """
        n, k = self.shape
        scale = self._scales().astype(np.float64)
        count = k // scale.shape[1]
        sums = self.codes.reshape(n, -1, count).sum(axis=2, dtype=np.int64)
        if self.format.minimum == "zero":
            sums -= self._float(self.minimum, None).astype(np.int64) * count
        totals: NDArray[np.float64] = (scale * sums).sum(axis=1)
        if self.format.minimum == "f16":
            totals += self._float(self.minimum, None).astype(np.float64).sum(axis=1) * count
        elif self.format.minimum == "q8":
            minima = self._float(self.minimum, self.minimum_factor).astype(np.float64)
            totals -= minima.sum(axis=1) * count
        with np.errstate(over="ignore"):
            rounded = totals.astype(np.float32)
        if not np.isfinite(rounded).all():
            raise ExportError("the sum of a row's weights is not finite in float32")
        return rounded

    def _scales(self) -> NDArray[np.float32]:
        """Return what each group's codes are multiplied with, [N, G] float32, which is exact."""
        if self.format.scale == "e8m0":
            return np.ldexp(np.float32(1.0), self.scale.astype(np.int32) - 128)
        return self._float(self.scale, self.factor)

    def _float(self, values: Any, factor: Any) -> NDArray[np.float32]:
        """Return values [N, G] in float32, times those of their super-group."""
        wide: NDArray[np.float32] = values.astype(np.float32)
        if factor is not None:
            wide *= np.repeat(factor.astype(np.float32), SUPER // self.format.group, axis=1)
        return wide


def _are_levels(codes: NDArray[Any], code: Code) -> bool:
    known = np.zeros(256, bool)
    known[np.array(LEVELS[code], np.int8).view(np.uint8)] = True
    return bool(known[codes.view(np.uint8)].all())


def _check(name: str, array: Any, dtype: Any, shape: tuple[int, int]) -> None:
    if dtype is None and array is None:
        return
    if dtype is None or array is None or array.dtype != dtype or array.shape != shape:
        got = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
        expected = "nothing" if dtype is None else f"{np.dtype(dtype)} {list(shape)}"
        raise ExportError(f"{name} is {got}, expected {expected}")
    if np.issubdtype(dtype, np.floating) and not np.isfinite(array).all():
        raise ExportError(f"{name} has values that are not finite")
