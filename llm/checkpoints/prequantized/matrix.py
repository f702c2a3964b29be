"""Matrices that a checkpoint stores as integers on a grid, whatever the layout of its tensors.

The readers beside this file find them among a checkpoint's tensors; here is what they have in
common: when such a matrix is symmetric int4 that an export can take over, and what it is as floats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import CheckpointError, ConfigError
from edge_llm.llm.checkpoints.arrays import Array, to_float32
from edge_llm.llm.checkpoints.huggingface.tensors import Tensors
from edge_llm.llm.checkpoints.source import Integers
from edge_llm.llm.config import is_integer, shorten

FLOATS = ("F32", "F16", "BF16")
GROUPS = (128, 64, 32)


@dataclass(frozen=True, slots=True)
class Grid:
    """A matrix as ``(q - zeros) * scales``. ``q`` is int8 [N, K]; ``scales`` float32 [N, G];
    ``zeros`` int16 [N, G], or None where all are 0; ``groups`` int64 [K] has the group of each
    column, None: G consecutive groups of equal size."""

    q: NDArray[np.int8]
    scales: NDArray[np.float32]
    zeros: NDArray[np.int16] | None = None
    groups: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class StoredMatrix:
    """One matrix [N, K] of a quantized checkpoint.

    Attributes:
        pieces: the tensors that it is made of.
        read: reads and unpacks it.
        group: columns that share a scale where it is int4 as an export stores it; else None.
        reason: why not, in words.
    """

    shape: tuple[int, int]
    pieces: tuple[str, ...]
    read: Callable[[], Grid]
    group: int | None
    reason: str = ""

    def values(self) -> NDArray[np.float32]:
        """Return the matrix in float32 [N, K].

        Raises:
            CheckpointError: it can no longer be read.
        """
        grid = self.read()
        n, k = grid.q.shape
        if grid.groups is None:
            values = grid.q.reshape(n, grid.scales.shape[1], -1).astype(np.float32)
            if grid.zeros is not None:
                values -= grid.zeros[:, :, None]
            values *= grid.scales[:, :, None]
            return values.reshape(n, k)
        values = grid.q.astype(np.float32)
        if grid.zeros is not None:
            values -= grid.zeros[:, grid.groups]
        values *= grid.scales[:, grid.groups]
        return values

    def integers(self) -> Integers:
        """The matrix as int4 with one scale per ``group`` columns; exactly ``values``."""
        assert self.group is not None
        grid = self.read()
        q, scales = grid.q, grid.scales
        k = q.shape[1]
        if grid.zeros is not None:
            # Only 0 and -1 occur, see `int4_group`: (q + 1) * s is (-1 - q) * -s.
            flipped = grid.zeros == -1
            columns = k // scales.shape[1]
            turned = flipped.repeat(columns, axis=1)
            q = np.where(turned, -1 - q, q)
            scales = np.where(flipped, -scales, scales)
        copies = k // self.group // scales.shape[1]
        return Integers(q, scales.repeat(copies, axis=1), self.group)


# suffix of a tensor -> allowed dtypes, shape
Pieces = dict[str, tuple[tuple[str, ...], tuple[int, ...]]]
# settings of the config, the tensors, lines for what does not fit -> parameter name -> matrix
Reader = Callable[[Mapping[str, object], Tensors, list[str]], dict[str, StoredMatrix]]


def int4_group(
    k: int, columns: int, zeros: NDArray[np.int16] | None, scales: Array | None
) -> tuple[int | None, str]:
    """The group with which an int4 matrix of ``k`` columns can be taken over, or None and why not.

    ``columns`` share a scale; ``zeros`` relative to a range of [-8, 7] (None: all 0); ``scales``
    None where they are float16 already. A scale of more than 128 columns, or of any number that
    32 divides, is repeated."""
    group = next((size for size in GROUPS if columns % size == 0), None)
    if group is None:
        return None, f"groups of {columns} columns"
    if zeros is not None and not bool(((zeros == 0) | (zeros == -1)).all()):
        return None, "zero points"
    if scales is not None and not _is_float16(to_float32(scales)):
        return None, "scales beyond float16"
    return group, ""


def _is_float16(values: NDArray[np.float32]) -> bool:
    with np.errstate(over="ignore"):  # then they differ
        return np.array_equal(values.astype(np.float16).astype(np.float32), values)


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
    """Whether every piece of ``module`` is there as expected; a line for each that is not."""
    found = [
        line
        for piece, (dtypes, shape) in pieces.items()
        if (line := _misfit(tensors, f"{module}.{piece}", dtypes, shape)) is not None
    ]
    problems += found
    return not found


def modules_with(tensors: Tensors, suffix: str) -> list[str]:
    """Names of the modules that hold a tensor called ``suffix``, in order."""
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
    """The shape of a stored tensor that must have two dimensions and no empty one.

    Raises:
        CheckpointError: it has not.
    """
    shape = tensors.entries[name].shape
    if len(shape) != 2 or 0 in shape:
        raise CheckpointError(f"{shorten(name)}: got shape {list(shape)}, expected a matrix")
    return shape[0], shape[1]


def integer_setting(settings: Mapping[str, object], key: str, where: str) -> int:
    """An integer of ``quantization_config``.

    Raises:
        ConfigError: it is missing or of another type.
    """
    value = settings.get(key)
    if not is_integer(value):
        raise ConfigError(f"{where}: {key}: got {shorten(value)}, expected an integer")
    return value
