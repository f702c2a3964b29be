"""Matrices that a checkpoint stores as integers on a grid, whatever the layout of its tensors.

The readers beside this file find them among a checkpoint's tensors; here is what they have in
common: when such a matrix is symmetric int4 that an export can take over, and what it is as floats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from edge_llm.errors import CheckpointError, ConfigError
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

    q: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None = None
    groups: torch.Tensor | None = None


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

    def values(self) -> torch.Tensor:
        """The matrix in float32 [N, K]."""
        grid = self.read()
        n, k = grid.q.shape
        if grid.groups is None:
            values = grid.q.view(n, grid.scales.shape[1], -1).to(torch.float32)
            if grid.zeros is not None:
                values -= grid.zeros.unsqueeze(-1)
            return (values * grid.scales.unsqueeze(-1)).view(n, k)
        values = grid.q.to(torch.float32)
        if grid.zeros is not None:
            values -= grid.zeros[:, grid.groups]
        return values * grid.scales[:, grid.groups]

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
            turned = flipped.repeat_interleave(columns, dim=1)
            q = torch.where(turned, -1 - q, q)
            scales = torch.where(flipped, -scales, scales)
        copies = k // self.group // scales.shape[1]
        return Integers(q, scales.repeat_interleave(copies, dim=1), self.group)


# suffix of a tensor -> allowed dtypes, shape
Pieces = dict[str, tuple[tuple[str, ...], tuple[int, ...]]]
# settings of the config, the tensors, lines for what does not fit -> parameter name -> matrix
Reader = Callable[[Mapping[str, object], Tensors, list[str]], dict[str, StoredMatrix]]


def int4_group(
    k: int, columns: int, zeros: torch.Tensor | None, scales: torch.Tensor | None
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
    if scales is not None and not torch.equal(scales.to(torch.float16).float(), scales.float()):
        return None, "scales beyond float16"
    return group, ""


def unpack_words(words: torch.Tensor, bits: int, dim: int) -> torch.Tensor:
    """Unsigned fields of int32 ``words`` [a, b], lowest bits first, less ``2 ** (bits - 1)``: int8,
    with 32 / bits times as many entries along ``dim``."""
    count, middle = 32 // bits, 1 << (bits - 1)
    a, b = words.shape
    shape = (a, count, b) if dim == 0 else (a, b, count)
    fields = torch.empty(shape, dtype=torch.int8)
    for index in range(count):
        field = (words >> (bits * index)) & ((1 << bits) - 1)
        fields.select(dim + 1, index).copy_(field - middle)
    return fields.view(a * count, b) if dim == 0 else fields.view(a, b * count)


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
