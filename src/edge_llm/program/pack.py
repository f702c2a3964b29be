"""Weights as the kernels stream them: panels of 16 output rows, each with its scales inline.

A panel format lays out a matrix ``[N, K]`` with N padded to 16 and K padded to 32. Panels are
contiguous; every field starts 32-byte aligned.

``i4g32 | i4g64 | i4g128``
    For each group along K, ``group / 32`` blocks of 256 bytes, then 16 fp16 scales; after the
    groups, 16 float32 row constants. A block holds 32 k in eight vectors of 32 bytes: for
    ``c = 0..3`` rows 0-7, then rows 8-15. Byte ``4r + i`` of the vector for c holds
    ``q[r, k0 + 8c + i] + 8`` in its low and ``q[r, k0 + 8c + 4 + i] + 8`` in its high nibble.
``i8``
    For each four k, 64 bytes ``[16 rows][4 k]``; then 16 float32 scales; then 16 float32 row
    constants.
``f32 | f16 | bf16``
    For each k, the 16 values of the rows.

The row constant is ``sum_g scale[n, g] * sum(q[n, g])``, computed in float64 and rounded once: with
it a kernel removes the zero point of an activation in one multiply-add (docs/quantization.md).

Errors: a format, shape or byte count that no layout fits is a `ProgramError`; values that cannot be
packed are an `ExportError`; weights too large for the float format asked for are a `ConfigError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_llm.errors import ConfigError, ExportError, ProgramError
from edge_llm.program.formats import WEIGHT_FORMATS, WeightFormat

PANEL = 16  # output rows of a panel: the 16 float lanes of every kernel
BLOCK = 32  # k of a block

# The largest K for which an int8 dot product, at most 127 * 128 a term, fits 32 bits.
MAX_I8_K = (2**31 - 1) // (127 * 128)

# Names of the formats that matrices are packed in.
PANEL_FORMATS = tuple(
    name for name, format_ in WEIGHT_FORMATS.items() if format_.is_panel and format_.code != "u4"
)

Bytes = NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A weight ``[N, K]`` without its padding.

    Integer formats have ``q`` (int8 ``[N, K]``) and ``scales`` (float32 ``[N, groups]``, one group
    for ``i8``); float formats have ``values`` (float32 ``[N, K]``).
    """

    q: NDArray[np.int8] | None = None
    scales: NDArray[np.float32] | None = None
    values: NDArray[np.float32] | None = None


def format_group(fmt: str) -> int:
    """Return the group size along K of an int4 format; 0 for every other panel format."""
    if fmt not in PANEL_FORMATS:
        raise ProgramError(f"weight format is {fmt!r}, expected one of {', '.join(PANEL_FORMATS)}")
    return int(fmt[3:]) if fmt.startswith("i4g") else 0


def fitting_format(fmt: str, k: int) -> str | None:
    """Return ``fmt``, or if its group does not divide ``k`` the int4 format with the largest group
    that does; None if none does."""
    group = format_group(fmt)
    if not group or k % group == 0:
        return fmt
    return next((f"i4g{size}" for size in (128, 64, 32) if k % size == 0), None)


def packed_bytes(format_: WeightFormat, n: int, k: int) -> int:
    """Return the size in bytes of an ``[n, k]`` weight packed as ``format_``."""
    return _panels(n) * _panel_dtype(format_, n, k).itemsize


def pack_float(weight: NDArray[np.float32], format_: WeightFormat) -> Bytes:
    """Pack float32 ``[N, K]`` as ``f32``, ``f16`` or ``bf16`` (round to nearest even)."""
    fmt = format_.name
    if fmt not in ("f32", "f16", "bf16"):
        raise ProgramError(f"float weight format is {fmt!r}, expected f32, f16 or bf16")
    n, k = _matrix(weight, np.float32, "weight")
    if not np.isfinite(weight).all():
        raise ExportError(f"a weight of shape [{n}, {k}] has values that are not finite")
    panels = np.zeros(_panels(n), _panel_dtype(format_, n, k))
    stored = _round_float(weight, fmt)
    panels["values"][:, :k] = _padded_rows(stored).reshape(-1, PANEL, k).transpose(0, 2, 1)
    return panels.view(np.uint8)


def pack_int8(q: NDArray[np.int8], scales: NDArray[np.float32]) -> Bytes:
    """Pack int8 ``[N, K]`` in [-127, 127] with one float32 scale per row (``[N]`` or ``[N, 1]``).

    -128 is refused: the kernels take absolute values in eight bits.
    """
    n, k = _matrix(q, np.int8, "q")
    if q.min() < -127:
        raise ExportError("int8 weights hold -128, expected values in [-127, 127]")
    row_scales = _finite_scales(scales, (n, 1))
    panels = np.zeros(_panels(n), _panel_dtype(WEIGHT_FORMATS["i8"], n, k))
    depth = panels["words"].shape[1]
    rows = np.zeros((len(panels) * PANEL, depth * 4), np.int8)
    rows[:n, :k] = q
    # Four k of a row travel together, so the copy moves 32-bit words.
    panels["words"] = rows.view(np.uint32).reshape(-1, PANEL, depth).transpose(0, 2, 1)
    constants = row_scales[:, 0].astype(np.float64) * q.sum(axis=1, dtype=np.int64)
    panels["scales"] = _padded_rows(row_scales).reshape(-1, PANEL)
    panels["constants"] = _padded_rows(constants).reshape(-1, PANEL)
    return panels.view(np.uint8)


def pack_int4(q: NDArray[np.int8], scales: ArrayLike, group: int) -> Bytes:
    """Pack int4 ``[N, K]`` in [-8, 7] with scales ``[N, K / group]`` that fp16 holds exactly.

    ``q`` was chosen for the scales that the kernel will use, so a scale that fp16 would round is
    refused here; the quantize stage rounds scales first.
    """
    n, k = _matrix(q, np.int8, "q")
    layout = _panel_dtype(WeightFormat("i4", group, "f16"), n, k)
    if q.min() < -8 or q.max() > 7:
        raise ExportError(f"int4 weights span [{q.min()}, {q.max()}], expected [-8, 7]")
    group_scales = _finite_scales(scales, (n, k // group))
    with np.errstate(over="ignore"):
        half = group_scales.astype(np.float16)
    if not np.array_equal(half.astype(np.float32), group_scales):
        raise ExportError("int4 scales are not fp16 values; round them before q is chosen")

    panels = np.zeros(_panels(n), layout)
    nibbles = _padded_rows(q).view(np.uint8) + np.uint8(8)  # padded rows are q = 0
    pairs = nibbles.reshape(-1, 2, 4)  # (.., low or high nibble, i)
    words = (pairs[:, 0] | (pairs[:, 1] << np.uint8(4))).view(np.uint32)
    # (panel, row half, row, group, block, c) -> (panel, group, block, c, row half, row)
    split = words.reshape(len(panels), 2, PANEL // 2, k // group, group // BLOCK, 4)
    panels["groups"]["words"] = split.transpose(0, 3, 4, 5, 1, 2)
    panels["groups"]["scales"] = (
        _padded_rows(half).reshape(-1, PANEL, k // group).transpose(0, 2, 1)
    )
    sums = q.reshape(n, k // group, group).sum(axis=2, dtype=np.int64)
    constants = (group_scales.astype(np.float64) * sums).sum(axis=1)
    panels["constants"] = _padded_rows(constants).reshape(-1, PANEL)
    return panels.view(np.uint8)


def unpack(data: Bytes, format_: WeightFormat, n: int, k: int) -> Unpacked:
    """Return the values of an ``[n, k]`` weight from its packed bytes."""
    panels = _view(data, format_, n, k)
    group = format_.group
    if group:
        words = np.ascontiguousarray(panels["groups"]["words"].transpose(0, 4, 5, 1, 2, 3))
        packed = words.view(np.uint8).reshape(-1, 1, 4)
        pairs = np.concatenate((packed & np.uint8(15), packed >> np.uint8(4)), axis=1)
        q = (pairs.view(np.int8) - np.int8(8)).reshape(-1, k)[:n]
        half = panels["groups"]["scales"].transpose(0, 2, 1).reshape(-1, k // group)[:n]
        return Unpacked(q=q, scales=half.astype(np.float32))
    if format_.code == "i8":
        words = np.ascontiguousarray(panels["words"].transpose(0, 2, 1))
        rows = words.view(np.int8).reshape(len(panels) * PANEL, -1)
        scales = panels["scales"].reshape(-1, 1)[:n].astype(np.float32)
        return Unpacked(q=rows[:n, :k], scales=scales)
    stored = panels["values"].transpose(0, 2, 1).reshape(len(panels) * PANEL, -1)[:n, :k]
    if format_.code == "bf16":
        return Unpacked(values=(stored.astype(np.uint32) << np.uint32(16)).view(np.float32))
    return Unpacked(values=stored.astype(np.float32))


def dequantize(data: Bytes, format_: WeightFormat, n: int, k: int) -> NDArray[np.float32]:
    """Return float32 ``[n, k]``: ``scale * q`` rounded once, as the kernels mean it."""
    unpacked = unpack(data, format_, n, k)
    if unpacked.q is None or unpacked.scales is None:
        assert unpacked.values is not None  # one of the two kinds, by construction
        return unpacked.values
    groups = unpacked.q.astype(np.float32).reshape(n, unpacked.scales.shape[1], -1)
    groups *= unpacked.scales[:, :, None]
    return groups.reshape(n, k)


def _panels(n: int) -> int:
    return -(-n // PANEL)


def _panel_dtype(format_: WeightFormat, n: int, k: int) -> np.dtype[np.void]:
    """Return the layout of one panel as a structured dtype."""
    if not format_.is_panel or format_.code == "u4":
        raise ProgramError(f"weight format {format_} has no panels")
    group, fmt = format_.group, format_.code
    if n < 1 or k < 1:
        raise ProgramError(f"weight shape is [{n}, {k}], expected positive sizes")
    if group:
        if k % group:
            raise ProgramError(f"weight format {fmt!r} needs K divisible by {group}, got {k}")
        layout = np.dtype(
            [("words", np.uint32, (group // BLOCK, 4, 2, PANEL // 2)), ("scales", "<f2", (PANEL,))]
        )
        return np.dtype([("groups", layout, (k // group,)), ("constants", "<f4", (PANEL,))])
    depth = -(-k // BLOCK) * BLOCK
    if fmt == "i8":
        if k > MAX_I8_K:
            raise ProgramError(f"weight format 'i8' takes K up to {MAX_I8_K}, got {k}")
        return np.dtype(
            [
                ("words", np.uint32, (depth // 4, PANEL)),
                ("scales", "<f4", (PANEL,)),
                ("constants", "<f4", (PANEL,)),
            ]
        )
    stored = {"f32": "<f4", "f16": "<f2", "bf16": "<u2"}[fmt]
    return np.dtype([("values", stored, (depth, PANEL))])


def _view(data: Bytes, format_: WeightFormat, n: int, k: int) -> NDArray[np.void]:
    expected = packed_bytes(format_, n, k)
    if data.dtype != np.uint8 or data.ndim != 1 or data.size != expected:
        raise ProgramError(
            f"a packed {format_.name} weight [{n}, {k}] is {data.dtype} {list(data.shape)}, "
            f"expected uint8 [{expected}]"
        )
    return np.ascontiguousarray(data).view(_panel_dtype(format_, n, k))


def _matrix(array: NDArray[np.generic], dtype: type[np.generic], name: str) -> tuple[int, int]:
    if array.dtype != dtype or array.ndim != 2 or array.size == 0:
        raise ExportError(
            f"{name} is {array.dtype} {list(array.shape)}, expected {np.dtype(dtype)} [N, K]"
        )
    return array.shape[0], array.shape[1]


def _finite_scales(scales: ArrayLike, shape: tuple[int, int]) -> NDArray[np.float32]:
    array = np.asarray(scales, np.float32)
    if array.shape != shape and (shape[1] != 1 or array.shape != shape[:1]):
        raise ExportError(f"scales have shape {list(array.shape)}, expected {list(shape)}")
    if not np.isfinite(array).all():
        raise ExportError("scales have values that are not finite")
    return array.reshape(shape)


def _padded_rows(array: NDArray[Scalar]) -> NDArray[Scalar]:
    """Return ``array`` C-contiguous, with zero rows up to whole panels."""
    missing = -len(array) % PANEL
    if missing:
        return np.concatenate((array, np.zeros((missing, *array.shape[1:]), array.dtype)))
    return np.ascontiguousarray(array)


def _round_float(
    weight: NDArray[np.float32], fmt: str
) -> NDArray[np.float32] | NDArray[np.float16] | NDArray[np.uint16]:
    """Return finite ``weight`` in the stored type of ``fmt``, rounded to nearest even."""
    if fmt == "f32":
        return weight
    overflow: bool
    stored: NDArray[np.float16] | NDArray[np.uint16]
    if fmt == "f16":
        with np.errstate(over="ignore"):
            stored = weight.astype(np.float16)
        overflow = bool(np.isinf(stored).any())
    else:
        bits = weight.view(np.uint32)
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        stored = ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)
        overflow = bool(((stored & np.uint16(0x7F80)) == 0x7F80).any())
    if overflow:
        raise ConfigError(
            f"{fmt} cannot hold this weight: its largest magnitude is {np.abs(weight).max():g}",
            hint="store it as bf16 or fp32",
        )
    return stored
