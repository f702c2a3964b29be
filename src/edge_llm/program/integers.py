"""A matrix in an integer format, as the numbers of that format.

Checkpoint readers, the quantizer, packing, the oracle and the report pass matrices of integers to
each other in this one form, a few rows at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import ExportError
from edge_llm.program.formats import SUPER, WeightFormat

_CODES = {"i4": (np.int8, -8, 7), "u4": (np.uint8, 0, 15), "i8": (np.int8, -127, 127)}
_SCALES = {"f32": np.float32, "f16": np.float16, "q8": np.uint8}
_MINIMA = {"none": None, "f16": np.float16, "q8": np.uint8, "zero": np.uint8}


@dataclass(frozen=True, slots=True)
class Integers:
    """A matrix [N, K] with G = K / group groups of columns (1 where a scale is the row's).

    Attributes:
        format: an integer format; `program.formats` says what its numbers stand for.
        codes: [N, K], uint8 for ``u4``, else int8.
        scale: [N, G] in the format's own type: float32, float16, or uint8 for ``q8``.
        minimum: [N, G] float16, or uint8 for ``q8`` and ``zero``; None where the format has none.
        factor: of ``q8`` scales, float16 [N, K / SUPER]; else None.
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
        dtype, low, high = _CODES[form.code]
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
        of_super = form.scale == "q8"
        if k % (SUPER if of_super else form.group or k):
            raise ExportError(f"{form.name} needs columns in groups, got {k}")
        groups, supers = (n, k // (form.group or k)), (n, k // SUPER)
        _check("scale", self.scale, _SCALES[form.scale], groups)
        _check("minimum", self.minimum, _MINIMA[form.minimum], groups)
        _check("factor", self.factor, np.float16 if of_super else None, supers)
        _check("minimum_factor", self.minimum_factor, np.float16 if of_super else None, supers)

    @property
    def shape(self) -> tuple[int, int]:
        """N and K."""
        return self.codes.shape[0], self.codes.shape[1]

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
        scale = self._float(self.scale, self.factor)
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
        """
        n, k = self.shape
        scale = self._float(self.scale, self.factor).astype(np.float64)
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
        return totals.astype(np.float32)

    def _float(self, values: Any, factor: Any) -> NDArray[np.float32]:
        """Return values [N, G] in float32, times those of their super-group."""
        wide: NDArray[np.float32] = values.astype(np.float32)
        if factor is not None:
            wide *= np.repeat(factor.astype(np.float32), SUPER // self.format.group, axis=1)
        return wide


def _check(name: str, array: Any, dtype: Any, shape: tuple[int, int]) -> None:
    if dtype is None and array is None:
        return
    if dtype is None or array is None or array.dtype != dtype or array.shape != shape:
        got = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
        expected = "nothing" if dtype is None else f"{np.dtype(dtype)} {list(shape)}"
        raise ExportError(f"{name} is {got}, expected {expected}")
    if dtype != np.uint8 and not np.isfinite(array).all():
        raise ExportError(f"{name} has values that are not finite")
