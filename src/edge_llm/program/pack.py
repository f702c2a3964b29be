"""Weights as the kernels stream them; `program.panels` has the layouts.

Errors: a format, shape or byte count that no layout fits is a `ProgramError`; values that cannot be
packed are an `ExportError`; weights too large for the float format asked for are a `ConfigError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import ConfigError, ExportError, ProgramError
from edge_llm.program.formats import WeightFormat
from edge_llm.program.integers import Integers
from edge_llm.program.panels import (
    BLOCK,
    MAX_I8_K,
    PANEL,
    packed_bytes,
    panel_count,
    panel_dtype,
)

__all__ = [
    "BLOCK",
    "MAX_I8_K",
    "PANEL",
    "dequantize",
    "pack_float",
    "pack_integers",
    "packed_bytes",
    "unpack_floats",
    "unpack_integers",
]

Bytes = NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)


def pack_float(weight: NDArray[np.float32], format_: WeightFormat) -> Bytes:
    """Pack float32 ``[N, K]`` as ``f32``, ``f16`` or ``bf16`` (round to nearest even)."""
    if not format_.is_float:
        raise ProgramError(f"float weight format is {format_}, expected f32, f16 or bf16")
    if weight.dtype != np.float32 or weight.ndim != 2 or weight.size == 0:
        raise ExportError(f"weight is {weight.dtype} {list(weight.shape)}, expected float32 [N, K]")
    n, k = weight.shape
    if not np.isfinite(weight).all():
        raise ExportError(f"a weight of shape [{n}, {k}] has values that are not finite")
    panels = np.zeros(panel_count(n), panel_dtype(format_, n, k))
    stored = _round_float(weight, format_.code)
    panels["values"][:, :k] = _padded_rows(stored).reshape(-1, PANEL, k).transpose(0, 2, 1)
    return panels.view(np.uint8)


def pack_integers(weight: Integers) -> Bytes:
    """Pack a matrix of integers in its own format."""
    n, k = weight.shape
    panels = np.zeros(panel_count(n), panel_dtype(weight.format, n, k))
    panels["constants"] = _padded_rows(weight.constants()).reshape(-1, PANEL)
    if weight.format.group:
        _pack_groups(weight, panels)
        return panels.view(np.uint8)
    depth = panels["words"].shape[1]
    rows = np.zeros((len(panels) * PANEL, depth * 4), np.int8)
    rows[:n, :k] = weight.codes
    # Four k of a row travel together, so the copy moves 32-bit words.
    panels["words"] = rows.view(np.uint32).reshape(-1, PANEL, depth).transpose(0, 2, 1)
    panels["scales"] = _padded_rows(weight.scale).reshape(-1, PANEL)
    return panels.view(np.uint8)


def unpack_integers(data: Bytes, format_: WeightFormat, n: int, k: int) -> Integers:
    """Return an ``[n, k]`` weight of an integer format from its packed bytes."""
    panels = _view(data, format_, n, k)
    if format_.group:
        return _unpack_groups(panels, format_, n, k)
    words = np.ascontiguousarray(panels["words"].transpose(0, 2, 1))
    rows = words.view(np.int8).reshape(len(panels) * PANEL, -1)
    scales = panels["scales"].reshape(-1, 1)[:n].astype(np.float32)
    return Integers(format_, rows[:n, :k], scales)


def unpack_floats(data: Bytes, format_: WeightFormat, n: int, k: int) -> NDArray[np.float32]:
    """Return an ``[n, k]`` weight of a float format from its packed bytes, in float32."""
    panels = _view(data, format_, n, k)
    stored = panels["values"].transpose(0, 2, 1).reshape(len(panels) * PANEL, -1)[:n, :k]
    if format_.code == "bf16":
        wide: NDArray[np.uint32] = stored.astype(np.uint32) << np.uint32(16)
        return wide.view(np.float32)
    return np.asarray(stored.astype(np.float32))


def dequantize(data: Bytes, format_: WeightFormat, n: int, k: int) -> NDArray[np.float32]:
    """Return float32 ``[n, k]``, each value rounded once, as the kernels mean it."""
    if format_.is_float:
        return unpack_floats(data, format_, n, k)
    return unpack_integers(data, format_, n, k).dequantize()


def _pack_groups(weight: Integers, panels: NDArray[np.void]) -> None:
    form = weight.format
    signed = form.code == "i4"  # padded rows are the code 0, too
    nibbles = _padded_rows(weight.codes).view(np.uint8) + np.uint8(8 if signed else 0)
    pairs = nibbles.reshape(-1, 2, 4)  # (.., low or high nibble, i)
    words = (pairs[:, 0] | (pairs[:, 1] << np.uint8(4))).view(np.uint32)
    # (panel, row half, row, group, block, c) -> (panel, group, block, c, row half, row)
    split = words.reshape(len(panels), 2, PANEL // 2, -1, form.group // BLOCK, 4)
    words = split.transpose(0, 3, 4, 5, 1, 2)
    scales, minima = _to_lanes(weight.scale), _to_lanes(weight.minimum)
    for groups, frames in _frames(panels):
        shape = frames["groups"].shape
        frames["groups"]["words"] = words[:, groups].reshape(*shape, *words.shape[2:])
        frames["groups"]["scales"] = scales[:, groups].reshape(*shape, PANEL)
        if form.minimum == "zero":
            frames["zeros"][:, :, : shape[2]] = minima[:, groups].reshape(*shape, PANEL)
        elif form.minimum != "none":
            frames["groups"]["minima"] = minima[:, groups].reshape(*shape, PANEL)
    if form.scale == "q8":
        panels["frames"]["factors"] = _to_lanes(weight.factor)
        panels["frames"]["minimum_factors"] = _to_lanes(weight.minimum_factor)


def _unpack_groups(panels: NDArray[np.void], form: WeightFormat, n: int, k: int) -> Integers:
    def collected(values: list[NDArray[Any]]) -> NDArray[Any]:
        """Return [N, groups] from parts [panels, frames, groups of a frame, lanes]."""
        parts = [part.reshape(len(panels), -1, PANEL) for part in values]
        whole = np.concatenate(parts, axis=1).transpose(0, 2, 1)
        return np.ascontiguousarray(whole.reshape(len(panels) * PANEL, -1)[:n])

    parts = [frames for _, frames in _frames(panels)]
    words = [part["groups"]["words"] for part in parts]
    shape = words[0].shape[3:]
    joined = np.concatenate([part.reshape(len(panels), -1, *shape) for part in words], axis=1)
    rows = np.ascontiguousarray(joined.transpose(0, 4, 5, 1, 2, 3))
    packed = rows.view(np.uint8).reshape(-1, 1, 4)
    pairs = np.concatenate((packed & np.uint8(15), packed >> np.uint8(4)), axis=1)
    codes: NDArray[Any] = pairs.reshape(-1, k)[:n]
    if form.code == "i4":
        codes = codes.view(np.int8) - np.int8(8)
    scale = collected([part["groups"]["scales"] for part in parts])
    if form.minimum == "none":
        return Integers(form, codes, scale)
    if form.minimum == "zero":
        zeros = collected([part["zeros"][:, :, : part["groups"].shape[2]] for part in parts])
        return Integers(form, codes, scale, zeros)
    minima = collected([part["groups"]["minima"] for part in parts])
    if form.scale != "q8":
        return Integers(form, codes, scale, minima)
    factors = (collected([panels["frames"][name]]) for name in ("factors", "minimum_factors"))
    return Integers(form, codes, scale, minima, *factors)


def _frames(panels: NDArray[np.void]) -> Iterator[tuple[slice, NDArray[np.void]]]:
    """Yield which groups lie in frames of one kind, and those frames [panels, frames]: the whole
    ones, and the last if it has fewer groups."""
    begin = 0
    for name in ("frames", "last"):
        frames = panels[name]
        count = frames["groups"].shape[1] * frames["groups"].shape[2]
        if count:
            yield slice(begin, begin + count), frames
        begin += count


def _to_lanes(array: NDArray[Any] | None) -> NDArray[Any]:
    """Return [N, groups] as [panels, groups, lanes]."""
    if array is None:
        return np.empty(0)
    return _padded_rows(array).reshape(-1, PANEL, array.shape[1]).transpose(0, 2, 1)


def _view(data: Bytes, format_: WeightFormat, n: int, k: int) -> NDArray[np.void]:
    layout = panel_dtype(format_, n, k)
    expected = panel_count(n) * layout.itemsize
    if data.dtype != np.uint8 or data.ndim != 1 or data.size != expected:
        raise ProgramError(
            f"a packed {format_.name} weight [{n}, {k}] is {data.dtype} {list(data.shape)}, "
            f"expected uint8 [{expected}]"
        )
    return np.ascontiguousarray(data).view(layout)


def _padded_rows(array: NDArray[Scalar]) -> NDArray[Scalar]:
    """Return ``array`` C-contiguous, with zero rows up to whole panels."""
    missing = -len(array) % PANEL
    if missing:
        return np.concatenate((array, np.zeros((missing, *array.shape[1:]), array.dtype)))
    return np.ascontiguousarray(array)


def _round_float(
    weight: NDArray[np.float32], code: str
) -> NDArray[np.float32] | NDArray[np.float16] | NDArray[np.uint16]:
    """Return finite ``weight`` in the stored type of ``code``, rounded to nearest even."""
    if code == "f32":
        return weight
    overflow: bool
    stored: NDArray[np.float16] | NDArray[np.uint16]
    if code == "f16":
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
            f"{code} cannot hold this weight: its largest magnitude is {np.abs(weight).max():g}",
            hint="store it as bf16 or fp32",
        )
    return stored
