"""Meta's quantized checkpoints (Llama 3.2, "INT4_EO8"): which matrices are integers, and what of.

A linear of a layer has ``weight`` int8 [N, K], one int4 a byte, ``scales`` float32 [N, K / group],
and maybe ``zeros``, which are 0; the embedding and the head, which are never tied, have int8 and a
scale a row. With ``lora_args`` each linear of a layer has ``adaptor.A.weight`` [rank, K] and
``adaptor.B.weight`` [N, rank] beside it. Dimensions of 1 may be there or not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_llm.errors import CheckpointError
from edge_llm.llm.checkpoints.arrays import FLOATS, to_float32
from edge_llm.llm.checkpoints.meta.shards import (
    EMBEDDING,
    HEAD,
    INTERLEAVED,
    Shards,
    parameter_name,
)
from edge_llm.llm.checkpoints.prequantized.matrix import (
    Grid,
    StoredMatrices,
    StoredMatrix,
    integer_format,
)
from edge_llm.llm.checkpoints.rows import half_split
from edge_llm.llm.checkpoints.source import Shape
from edge_llm.llm.config import ConfigReader, shorten

ARGUMENTS, ADAPTERS = "quantization_args", "lora_args"
SCHEME = "int4_weight_int8_dynamic_activation"
DEFAULT_SCALE = 2.0  # of adaptors
INT8, INT4_RANGE = np.dtype(np.int8), (-8, 7)
LARGEST_SCALE = float(np.finfo(np.float32).max) / 128  # whose products with all codes are finite
OUTER = (EMBEDDING, HEAD)


@dataclass(frozen=True, slots=True)
class Settings:
    """The facts of params.json: columns that share a scale, the rank and scale of adaptors (0 and
    None without), and whether w2 takes what a Hadamard transform makes of its input."""

    group: int
    rank: int
    scale: float | None
    hadamard: bool

    @property
    def name(self) -> str:
        """Return the method's name, for people."""
        parts = ["QLoRA"] if self.scale is not None else []
        return " and ".join([*parts, *(["SpinQuant"] if self.hadamard else [])]) or "int4"


def read_settings(reader: ConfigReader) -> Settings | None:
    """Return what params.json says of quantization, None where it says nothing; what cannot be
    honoured becomes a problem of ``reader``."""
    arguments, adapters = _object(reader, ARGUMENTS), _object(reader, ADAPTERS)
    if arguments is None:
        if adapters is not None:
            reader.problem(f"{ADAPTERS}: supported only beside {ARGUMENTS}")
        return None
    inner = ConfigReader(arguments, ARGUMENTS)
    if inner.get("scheme") is None:
        inner.problem(f"scheme: missing, expected {SCHEME!r}")
    inner.neutral("scheme", SCHEME)
    group, hadamard = inner.integer("group_size"), inner.flag("spinquant", False)
    reader.absorb(inner, ARGUMENTS)
    if adapters is None:
        return Settings(group, 0, None, hadamard)
    inner = ConfigReader(adapters, ADAPTERS)
    rank, scale = inner.integer("rank"), inner.positive("scale", DEFAULT_SCALE)
    reader.absorb(inner, ADAPTERS)
    return Settings(group, rank, scale, hadamard)


def _object(reader: ConfigReader, key: str) -> Mapping[str, object] | None:
    value = reader.get(key)
    if value is None or isinstance(value, dict):
        return value
    reader.problem(f"{key}: got {shorten(value)}, expected an object")
    return None


@dataclass(frozen=True, slots=True)
class QuantizedMatrices(StoredMatrices):
    """Those of a folder of Meta's."""

    def notes(self, settings: Settings) -> list[str]:
        """Return lines that say what was found."""
        formats = Counter(_held(matrix) for matrix in self.matrices.values())
        listed = ", ".join(f"{count} matrices hold {held}" for held, count in formats.items())
        lines = [f"checkpoint quantized by Meta with {settings.name}: {listed}"]
        if settings.scale is not None:
            lines.append(
                f"adaptors of rank {settings.rank}, times {settings.scale:g}, stay beside the "
                "linears of every layer"
            )
        if settings.hadamard:
            lines.append("a Hadamard transform comes before down_proj, which is folded for it")
        return lines

    def stored_as(self, settings: Settings) -> dict[str, str]:
        """Return how each matrix is stored, for people."""
        return {
            name: f"Meta {settings.name}, {_held(matrix)}" for name, matrix in self.matrices.items()
        }


def _held(matrix: StoredMatrix) -> str:
    return matrix.format.name if matrix.format else f"int4, read as floats ({matrix.reason})"


def read_quantized(
    tensors: Shards, settings: Settings, head_dim: int, problems: list[str], *, tied: bool
) -> QuantizedMatrices:
    """Return the matrices of integers; ``problems`` gets a line for each that does not fit. If
    ``tied``, the head's are the embedding's, and left out.

    Raises:
        CheckpointError: zero points, or scales that are not finite.
    """
    matrices: dict[str, StoredMatrix] = {}
    pieces: set[str] = set()
    for name in tensors.names():
        if not name.endswith(".weight") or tensors.dtype(name) != INT8:
            continue
        module, shape = name.removesuffix(".weight"), tensors.shape(name)
        pieces |= {
            found for part in ("scales", "zeros") if (found := f"{module}.{part}") in tensors
        }
        pieces.add(name)
        if len(shape) != 2:
            problems.append(f"shape: {name}: got {list(shape)}, expected a matrix")
            continue
        group = shape[1] if name in OUTER else settings.group
        if shape[1] % group:
            problems.append(f"shape: {name}: groups of {group} do not divide {shape[1]} columns")
        elif tied and name == HEAD:
            continue
        elif _fits(tensors, module, (shape[0], shape[1] // group), problems):
            split = head_dim if name.endswith(INTERLEAVED) else 0
            matrices[parameter_name(name)] = _matrix(tensors, module, group, split)
    return QuantizedMatrices(matrices, frozenset(pieces))


def _fits(tensors: Shards, module: str, expected: Shape, problems: list[str]) -> bool:
    """Return whether the scales of a matrix, and its zeros if it has any, are as expected."""
    scales, zeros = f"{module}.scales", f"{module}.zeros"
    if scales not in tensors:
        problems.append(f"missing: {scales}, expected {list(expected)}")
        return False
    before = len(problems)
    for name in (scales, zeros):
        if name in tensors and squeezed(tensors.shape(name)) != squeezed(expected):
            got = list(tensors.shape(name))
            problems.append(f"shape: {name}: got {got}, expected {list(expected)}")
    if tensors.dtype(scales) not in FLOATS:
        problems.append(f"dtype: {scales}: got {tensors.dtype(scales)}, expected floats")
    if len(problems) > before:
        return False
    if zeros in tensors and tensors.read(zeros).any():
        raise CheckpointError(f"{zeros}: got zero points other than 0, which this scheme has not")
    return True


def shares_table(tensors: Shards) -> bool:
    """Return whether the head holds the embedding's bytes, scales too where they have some."""
    scales = [name.replace(".weight", ".scales") for name in OUTER]
    if any(name in tensors for name in scales) and not (
        all(name in tensors for name in scales) and tensors.equal(*scales)
    ):
        return False
    return tensors.equal(EMBEDDING, HEAD)


def squeezed(shape: Shape) -> Shape:
    """Return a shape without its dimensions of 1."""
    return tuple(size for size in shape if size != 1)


def _matrix(tensors: Shards, module: str, group: int, head_dim: int) -> StoredMatrix:
    """Return a matrix; with ``head_dim`` its rows are in the interleaved rotary order."""
    name = f"{module}.weight"
    n, k = tensors.shape(name)
    scales = to_float32(tensors.read(f"{module}.scales")).reshape(n, k // group)
    if not (np.abs(scales) <= LARGEST_SCALE).all():
        raise CheckpointError(f"{module}.scales has values that are not finite, or too large")
    whole = name in OUTER

    def read() -> Grid:
        q = tensors.read(name)
        low, high = INT4_RANGE
        if not whole and ((q < low) | (q > high)).any():
            raise CheckpointError(f"{name}: got integers beyond [{low}, {high}], expected int4")
        if head_dim:
            return Grid(half_split(q, head_dim), half_split(scales, head_dim))
        return Grid(q, scales)

    names = (name, f"{module}.scales")
    held = integer_format(8 if whole else 4, k, group, None, scales)
    return StoredMatrix((n, k), names, read, *held)
