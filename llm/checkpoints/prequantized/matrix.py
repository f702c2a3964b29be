"""Matrices that a checkpoint stores as integers on a grid, whatever the layout of its tensors.

The readers beside this file find them among a checkpoint's tensors; here is what they have in
common: when such a matrix has integers that an export can take over, and what it is as floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import CheckpointError, ConfigError, ExportError
from edge_llm.llm.checkpoints.arrays import Array, to_float32
from edge_llm.llm.checkpoints.huggingface.tensors import Tensors
from edge_llm.llm.config import is_integer, shorten
from edge_llm.program.formats import WEIGHT_FORMATS, WeightFormat
from edge_llm.program.integers import Integers

FLOATS = ("F32", "F16", "BF16")
GROUPS = (128, 64, 32)
MIDDLE = 8  # of the codes 0 to 15
MOST_OFF = 2.0**-11  # of a normal number that is rounded to float16


@dataclass(frozen=True, slots=True)
class Grid:
    """A matrix as ``(q - zeros) * scales``. ``q`` is [N, K], int8, or floats that no program holds
    as they are; ``scales`` float32 [N, G];
    ``zeros`` int16 [N, G], or None where all are 0; ``groups`` int64 [K] has the group of each
    column, None: G consecutive groups of equal size."""

    q: NDArray[np.int8] | NDArray[np.float32]
    scales: NDArray[np.float32]
    zeros: NDArray[np.int16] | None = None
    groups: NDArray[np.int64] | None = None

    def rows(self, index: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return some rows in float32, [rows, K]."""
        q, scales = self.q[index], self.scales[index]
        zeros = None if self.zeros is None else self.zeros[index]
        n, k = q.shape
        if self.groups is None:
            values = q.reshape(n, scales.shape[1], -1).astype(np.float32)
            if zeros is not None:
                values -= zeros[:, :, None]
            values *= scales[:, :, None]
            return values.reshape(n, k)
        values = q.astype(np.float32)
        if zeros is not None:
            values -= zeros[:, self.groups]
        values *= scales[:, self.groups]
        return values


@dataclass(frozen=True, slots=True)
class StoredMatrix:
    """One matrix [N, K] of a quantized checkpoint.

    Attributes:
        pieces: the tensors that it is made of.
        read: reads and unpacks it, on a grid or in ``format`` already.
        format: that in which a program can hold its integers, if there is one.
        reason: why there is none, in words.
        exact: it holds ``values``; else nearly: its scales are rounded to float16, or its codes
            of -128 become -127.
    """

    shape: tuple[int, int]
    pieces: tuple[str, ...]
    read: Callable[[], Grid | Integers]
    format: WeightFormat | None
    reason: str = ""
    exact: bool = True

    def values(self) -> NDArray[np.float32]:
        """Return the matrix in float32 [N, K].

        Raises:
            CheckpointError: it can no longer be read.
        """
        grid = self.read()
        return grid.dequantize() if isinstance(grid, Integers) else grid.rows(slice(None))

    def grid(self) -> Grid:
        """Return what is stored, which is on a grid.

        Raises:
            CheckpointError: it can no longer be read.
        """
        grid = self.read()
        assert isinstance(grid, Grid)  # what is in a format already is exact
        return grid

    def integers(self) -> Integers:
        """Return the matrix in ``format``, which it has: ``values``, if ``exact``.

        Raises:
            CheckpointError: scales that are not finite, or it can no longer be read.
        """
        form, grid = self.format, self.read()
        assert form is not None
        if isinstance(grid, Integers):
            return grid
        k = grid.q.shape[1]
        columns = k // grid.scales.shape[1]
        copies = columns // (form.group or k)
        q, scales = grid.q, grid.scales
        if form.code == "i8":
            kept = scales if form.scale == "f32" else _half(scales).repeat(copies, axis=1)
            return Integers(form, np.maximum(q, np.int8(-127)), kept)
        zeros = np.zeros(scales.shape, np.int16) if grid.zeros is None else grid.zeros
        try:
            if form.minimum == "zero":
                zero = (zeros + MIDDLE).astype(np.uint8).repeat(copies, axis=1)
                codes = (q + np.int8(MIDDLE)).view(np.uint8)
                return Integers(form, codes, _half(scales).repeat(copies, axis=1), zero)
            # Only 0 and -1 occur, see `integer_format`: (q + 1) * s is (-1 - q) * -s.
            flipped = zeros == -1
            if flipped.any():
                q = np.where(flipped.repeat(columns, axis=1), -1 - q, q)
                scales = np.where(flipped, -scales, scales)
            return Integers(form, q, _half(scales).repeat(copies, axis=1))
        except ExportError as exc:
            raise CheckpointError(f"{self.pieces[0]}: {exc}") from exc


# suffix of a tensor -> allowed dtypes, shape
@dataclass(frozen=True, slots=True)
class StoredMatrices:
    """Those of a checkpoint: parameter name -> matrix, and the tensors that these consume."""

    matrices: Mapping[str, StoredMatrix]
    pieces: frozenset[str]

    @property
    def formats(self) -> dict[str, WeightFormat]:
        """Return the formats of those that a program can hold, as `Checkpoint` has them."""
        return {name: matrix.format for name, matrix in self.matrices.items() if matrix.format}

    @property
    def inexact(self) -> dict[str, Callable[[], Grid]]:
        """Return what reads those of `formats` that are held nearly."""
        return {
            name: matrix.grid
            for name, matrix in self.matrices.items()
            if matrix.format and not matrix.exact
        }

    def integers(self, name: str) -> Integers:
        """Return a matrix of `formats`.

        Raises:
            CheckpointError: scales that are not finite, or it can no longer be read.
        """
        return self.matrices[name].integers()


Pieces = dict[str, tuple[tuple[str, ...], tuple[int, ...]]]
# settings of the config, the tensors, lines for what does not fit -> parameter name -> matrix
Reader = Callable[[Mapping[str, object], Tensors, list[str]], dict[str, StoredMatrix]]


Held = tuple[WeightFormat | None, str, bool]  # the last of `StoredMatrix`


def integer_format(
    bits: int, k: int, columns: int, zeros: NDArray[np.int16] | None, scales: Array | None
) -> Held:
    """Return the format in which a program can hold a matrix of ``k`` columns, or None and why
    there is none; and whether it is exact.

    ``columns`` share a scale; ``zeros`` relative to the middle of the range (None: all 0);
    ``scales`` None where they are float16 already: others may be rounded to it by 2^-11 of their
    size. A scale of more than 128 columns, or of any number that 32 divides, is repeated."""
    if bits == 8:
        return _byte_format(k, columns, zeros, scales)
    if bits != 4:
        return None, f"{bits} bits", True
    group = next((size for size in GROUPS if columns % size == 0), None)
    if group is None:
        return None, f"groups of {columns} columns", True
    off = 0.0 if scales is None else _rounding(to_float32(scales))
    if not off <= MOST_OFF:
        return None, "scales beyond float16", True
    if zeros is None or ((zeros == 0) | (zeros == -1)).all():
        return WEIGHT_FORMATS[f"i4g{group}"], "", off == 0.0
    if zeros.min() < -MIDDLE or zeros.max() > MIDDLE:
        return None, "zero points beyond the range of the weights", True
    return WEIGHT_FORMATS[f"u4g{group}z"], "", off == 0.0


def _byte_format(
    k: int, columns: int, zeros: NDArray[np.int16] | None, scales: Array | None
) -> Held:
    """Return the same of eight bits, whose codes of -128 have no place in a program: float32 scales
    of rows stay, others are repeated for each 32 columns."""
    if zeros is not None and zeros.any():
        return None, "8 bits with zero points", True
    if columns == k:
        return WEIGHT_FORMATS["i8"], "", False
    if columns % 32:
        return None, f"groups of {columns} columns", True
    if scales is not None and not _rounding(to_float32(scales)) <= MOST_OFF:
        return None, "scales beyond float16", True
    return WEIGHT_FORMATS["i8g32"], "", False


def _rounding(values: NDArray[np.float32]) -> float:
    """Return the most that float16 changes a value by, relative to it; NaN where one is not
    finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.abs(_half(values).astype(np.float32) - values) / np.abs(values)
    return float(np.where(values == 0.0, 0.0, off).max())


def _half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):  # to infinity, which is found
        return values.astype(np.float16)


def unpack_words(words: NDArray[np.int32], bits: int, axis: int) -> NDArray[np.int8]:
    """Return the unsigned fields of ``words`` [a, b], lowest bits first, less ``2 ** (bits - 1)``:
    32 / bits times as many entries along ``axis``."""
    count, middle = 32 // bits, 1 << (bits - 1)
    a, b = words.shape
    fields = np.empty((a, count, b) if axis == 0 else (a, b, count), np.int8)
    for index in range(count):
        field = (words >> (bits * index)) & ((1 << bits) - 1)
        fields[(slice(None),) * (axis + 1) + (index,)] = field - middle
    return fields.reshape(a * count, b) if axis == 0 else fields.reshape(a, b * count)


def fitting_pieces(
    tensors: Tensors,
    module: str,
    pieces: Pieces,
    problems: list[str],
) -> bool:
    """Return whether every piece of ``module`` is there as expected; ``problems`` gets a line for
    each that is not."""
    found = [
        line
        for piece, (dtypes, shape) in pieces.items()
        if (line := _misfit(tensors, f"{module}.{piece}", dtypes, shape)) is not None
    ]
    problems += found
    return not found


def modules_with(tensors: Tensors, suffix: str) -> list[str]:
    """Return the names of the modules that hold a tensor called ``suffix``, in order."""
    return [name.removesuffix(suffix) for name in tensors.entries if name.endswith(suffix)]


def _misfit(
    tensors: Tensors, name: str, dtypes: tuple[str, ...], shape: tuple[int, ...]
) -> str | None:
    entry = tensors.entries.get(name)
    if entry is None:
        return f"missing: {shorten(name)}, expected {list(shape)}"
    if entry.dtype not in dtypes:
        return f"dtype: {shorten(name)}: got {entry.dtype}, expected one of {', '.join(dtypes)}"
    if entry.shape != shape:
        return f"shape: {shorten(name)}: got {list(entry.shape)}, expected {list(shape)}"
    return None


def matrix_shape(tensors: Tensors, name: str) -> tuple[int, int]:
    """Return the shape of a stored tensor that must have two dimensions and no empty one.

    Raises:
        CheckpointError: it has not.
    """
    shape = tensors.entries[name].shape
    if len(shape) != 2 or 0 in shape:
        raise CheckpointError(f"{shorten(name)}: got shape {list(shape)}, expected a matrix")
    return shape[0], shape[1]


def check_settings(facts: Iterable[tuple[str, object, bool, str]], hint: str | None = None) -> None:
    """Check settings of ``quantization_config``: key, value, whether it is supported, and what is.

    Raises:
        ConfigError: the first that is not; with the ``hint``.
    """
    for key, value, supported, expected in facts:
        if not supported:
            raise ConfigError(
                f"quantization_config: {key}: got {shorten(value)}, expected {expected}", hint=hint
            )


def integer_setting(settings: Mapping[str, object], key: str) -> int:
    """Return an integer of ``quantization_config``.

    Raises:
        ConfigError: it is missing or of another type.
    """
    value = settings.get(key)
    if not is_integer(value):
        raise ConfigError(f"quantization_config: {key}: got {shorten(value)}, expected an integer")
    return value
