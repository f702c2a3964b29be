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
from edge_llm.program.formats import LEVELS, WeightFormat
from edge_llm.program.integers import Integers
from edge_llm.program.panels import (
    BLOCK,
    MAX_I8_K,
    PANEL,
    PLANES,
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


# What is added to codes below 0, so that they count from 0.
_OFFSETS = {"i4": 8, "i5": 16, "i6": 32}


def _pack_groups(weight: Integers, panels: NDArray[np.void]) -> None:
    form = weight.format
    words, planes = _to_words(_fields(weight), form)
    scales, minima = _to_lanes(weight.scale), _to_lanes(weight.minimum)
    for groups, frames in _frames(panels):
        shape = frames["groups"].shape
        names = _names(frames["groups"])
        frames["groups"]["words"] = words[:, groups].reshape(*shape, *words.shape[2:])
        if "planes" in names:
            frames["groups"]["planes"] = planes[:, groups].reshape(*shape, *planes.shape[2:])
        if "scales" in names:
            frames["groups"]["scales"] = scales[:, groups].reshape(*shape, PANEL)
        else:
            frames["scales"][:, :, : shape[2]] = scales[:, groups].reshape(*shape, PANEL)
        if form.minimum == "zero":
            frames["zeros"][:, :, : shape[2]] = minima[:, groups].reshape(*shape, PANEL)
        elif form.minimum != "none":
            frames["groups"]["minima"] = minima[:, groups].reshape(*shape, PANEL)
    if form.has_factors:
        panels["frames"]["factors"] = _to_lanes(weight.factor)
    if form.minimum == "q8":
        panels["frames"]["minimum_factors"] = _to_lanes(weight.minimum_factor)


def _fields(weight: Integers) -> NDArray[np.uint8]:
    """Return the codes as they are stored, with rows up to whole panels, [N', K] uint8. Padded rows
    are the code 0, where there is one: their scales are 0."""
    form, codes = weight.format, _padded_rows(weight.codes).view(np.uint8)
    if form.code in LEVELS:
        field = np.zeros(256, np.uint8)
        levels = np.array(LEVELS[form.code], np.int8).view(np.uint8)
        field[levels[::-1]] = np.arange(len(levels), dtype=np.uint8)[::-1]  # of two, the first
        return field[codes]
    return codes + np.uint8(_OFFSETS.get(form.code, 0))


def _codes(fields: NDArray[np.uint8], form: WeightFormat) -> NDArray[Any]:
    """Return the codes that are stored as ``fields``."""
    if form.code in LEVELS:
        return np.array(LEVELS[form.code], np.int8)[fields]
    if form.code in ("u4", "u5"):
        return fields
    return fields.view(np.int8) - np.int8(_OFFSETS.get(form.code, 0))


def _to_words(
    fields: NDArray[np.uint8], form: WeightFormat
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return [panels, groups, words of a row, lanes]: of fields [N', K] the low four bits (all
    eight of eight), and the bits above."""
    n, k = fields.shape

    def lanes(packed: NDArray[np.uint8]) -> NDArray[np.uint32]:
        split = packed.reshape(n, -1).view(np.uint32)
        return split.reshape(n // PANEL, PANEL, k // form.group, -1).transpose(0, 2, 3, 1)

    if form.bits == 8:
        return lanes(fields), np.empty(0, np.uint32)
    pairs = (fields & np.uint8(15)).reshape(-1, 2, 4)  # (.., low or high nibble, i)
    words = lanes(pairs[:, 0] | (pairs[:, 1] << np.uint8(4)))
    if form.bits == 4:
        return words, np.empty(0, np.uint32)
    steps = (fields >> np.uint8(4)).reshape(-1, PLANES[form.bits] // 4, 4)
    shifts = np.arange(steps.shape[1], dtype=np.uint8) * np.uint8(form.bits - 4)
    return words, lanes(np.bitwise_or.reduce(steps << shifts[:, None], axis=1))


def _from_words(
    words: NDArray[np.uint32], planes: NDArray[np.uint32] | None, form: WeightFormat
) -> NDArray[np.uint8]:
    """Return the fields [N', K] of what `_to_words` makes."""

    def rows(lanes: NDArray[np.uint32]) -> NDArray[np.uint8]:
        ordered = np.ascontiguousarray(lanes.transpose(0, 3, 1, 2))
        return ordered.reshape(lanes.shape[0] * PANEL, -1).view(np.uint8)

    packed = rows(words)
    n = len(packed)
    if form.bits == 8:
        return packed
    packed = packed.reshape(-1, 1, 4)
    low: NDArray[np.uint8] = np.concatenate(
        (packed & np.uint8(15), packed >> np.uint8(4)), axis=1
    ).reshape(n, -1)
    if planes is None:
        return low
    bits = form.bits - 4
    shifts = np.arange(PLANES[form.bits] // 4, dtype=np.uint8) * np.uint8(bits)
    high: NDArray[np.uint8] = (rows(planes).reshape(-1, 1, 4) >> shifts[:, None]) & np.uint8(
        2**bits - 1
    )
    return low | (high.reshape(n, -1) << np.uint8(4))


def _unpack_groups(panels: NDArray[np.void], form: WeightFormat, n: int, k: int) -> Integers:
    parts = [frames for _, frames in _frames(panels)]

    def joined(name: str) -> NDArray[Any]:
        """Return a field of groups, of their tails or of the headers, [panels, groups, ..]."""
        found = [
            part["groups"][name]
            if name in _names(part["groups"])
            else part[name][:, :, : part["groups"].shape[2]]
            for part in parts
        ]
        return np.concatenate([part.reshape(len(panels), -1, *part.shape[3:]) for part in found], 1)

    def numbers(name: str) -> NDArray[Any]:
        return _from_lanes(joined(name), n)

    planes = joined("planes") if form.bits in PLANES else None
    codes = _codes(_from_words(joined("words"), planes, form)[:n], form)
    scale = numbers("scales")
    names = {"none": None, "zero": "zeros", "f16": "minima", "q8": "minima"}
    name = names[form.minimum]
    minimum = None if name is None else numbers(name)
    factor = _from_lanes(panels["frames"]["factors"], n) if form.has_factors else None
    if form.minimum != "q8":
        return Integers(form, codes, scale, minimum, factor)
    minimum_factor = _from_lanes(panels["frames"]["minimum_factors"], n)
    return Integers(form, codes, scale, minimum, factor, minimum_factor)


def _names(fields: NDArray[np.void]) -> tuple[str, ...]:
    return fields.dtype.names or ()


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


def _from_lanes(lanes: NDArray[Any], n: int) -> NDArray[Any]:
    """Return [n, groups] of what `_to_lanes` makes."""
    whole = lanes.transpose(0, 2, 1).reshape(len(lanes) * PANEL, -1)
    return np.ascontiguousarray(whole[:n])


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
