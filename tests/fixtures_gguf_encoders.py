"""Simple encoders of GGUF's block formats, each within half a step of its own grid.

The ``gguf`` package encodes the formats of 32 weights but not the super-blocks. Here scales are
rounded up, so that every grid reaches as far as its weights do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]

LEVELS = np.array(gguf.quants.IQ4_NL.kvalues, np.float64)


def encode(values: NDArray[np.float32], name: str) -> NDArray[Any]:
    """Rows of weights in a format, as the writer of the ``gguf`` package wants them."""
    if name not in ENCODERS:
        encoded: NDArray[Any] = gguf.quants.quantize(values, gguf.GGMLQuantizationType[name])
        return encoded
    return encode_blocks(values, name)[0].reshape(len(values), -1)


def encode_blocks(values: NDArray[np.float32], name: str) -> tuple[Bytes, Floats]:
    """Blocks [blocks, bytes], and for each weight the distance of the grid's numbers around it."""
    block_size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]][0]
    blocks, step = ENCODERS[name](values.astype(np.float64).reshape(-1, block_size))
    return blocks, step.reshape(values.shape)


def _q2_k(values: Floats) -> tuple[Bytes, Floats]:
    q, d, dmin, scales, minima, step = _affine(values, 16, 3, 15)
    return _join(scales | minima << 4, _pack(q, 32, 2), d, dmin), step


def _q3_k(values: Floats) -> tuple[Bytes, Floats]:
    q, d, scales, step = _symmetric(values, 16, 4, 31)
    codes = scales + 32
    parts = _pack(q >> 2, 32, 1), _pack(q & 3, 32, 2), _pack(codes & 15, 8, 4)
    return _join(*parts, _pack(codes >> 4, 4, 2), d), step


def _q4_k(values: Floats) -> tuple[Bytes, Floats]:
    q, d, dmin, scales, minima, step = _affine(values, 32, 15, 63)
    return _join(d, dmin, _six_bit(scales, minima), _pack(q, 32, 4)), step


def _q5_k(values: Floats) -> tuple[Bytes, Floats]:
    q, d, dmin, scales, minima, step = _affine(values, 32, 31, 63)
    parts = _six_bit(scales, minima), _pack(q >> 4, 32, 1), _pack(q & 15, 32, 4)
    return _join(d, dmin, *parts), step


def _q6_k(values: Floats) -> tuple[Bytes, Floats]:
    q, d, scales, step = _symmetric(values, 16, 32, 127)
    return _join(_pack(q & 15, 64, 4), _pack(q >> 4, 32, 2), scales, d), step


def _iq4_nl(values: Floats) -> tuple[Bytes, Floats]:
    d = _half_up(np.abs(values).max(axis=1, keepdims=True) / LEVELS[-1])
    q, step = _nearest_level(values, d.astype(np.float64))
    return _join(d, _pack(q, 16, 4)), step


def _iq4_xs(values: Floats) -> tuple[Bytes, Floats]:
    largest = np.abs(values).reshape(len(values), -1, 32).max(axis=2)
    d, scales = _scales(largest / LEVELS[-1], 31)
    q, step = _nearest_level(values, _spread(d.astype(np.float64) * scales, 32))
    codes = scales + 32
    parts = _pack(codes >> 4, 1, 2), _pack(codes & 15, 1, 4), _pack(q, 16, 4)
    return _join(d, *parts), step


ENCODERS: dict[str, Callable[[Floats], tuple[Bytes, Floats]]] = {
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
}


def _symmetric(values: Floats, group: int, zero: int, most: int) -> tuple[Any, Any, Any, Floats]:
    """w = d * s * (q - zero) with s up to ``most``: (q, d, s, step)."""
    largest = np.abs(values).reshape(len(values), -1, group).max(axis=2)
    d, scales = _scales(largest / (zero - 1), most)
    step = _spread(d.astype(np.float64) * scales, group)
    q = np.clip(_rounded(values, step) + zero, 0, 2 * zero - 1).astype(np.uint8)
    return q, d, scales, step


def _affine(
    values: Floats, group: int, top: int, most: int
) -> tuple[Any, Any, Any, Any, Any, Floats]:
    """w = d * s * q - dmin * m with q up to ``top``, s and m up to ``most``: (q, d, dmin, s, m,
    step)."""
    grouped = values.reshape(len(values), -1, group)
    dmin, minima = _scales(np.maximum(-grouped.min(axis=2), 0), most)
    least = dmin.astype(np.float64) * minima
    d, scales = _scales((grouped.max(axis=2) + least) / top, most)
    step = _spread(d.astype(np.float64) * scales, group)
    q = np.clip(_rounded(values + _spread(least, group), step), 0, top).astype(np.uint8)
    return q, d, dmin, scales, minima, step


def _scales(wanted: Floats, most: int) -> tuple[NDArray[np.float16], Bytes]:
    """d [blocks, 1] and integers up to ``most`` whose products are at least ``wanted``."""
    d = _half_up(wanted.max(axis=1, keepdims=True) / most)
    wide = np.where(d == 0, 1.0, d.astype(np.float64))
    return d, np.ceil(wanted / wide).astype(np.uint8)


def _half_up(values: Floats) -> NDArray[np.float16]:
    rounded = values.astype(np.float16)
    return np.where(rounded < values, np.nextafter(rounded, np.float16(np.inf)), rounded)


def _rounded(values: Floats, step: Floats) -> Floats:
    return np.rint(values / np.where(step == 0, 1.0, step))


def _nearest_level(values: Floats, scale: Floats) -> tuple[Bytes, Floats]:
    distances = np.abs(values[..., None] - scale[..., None] * LEVELS)
    widest = np.diff(LEVELS).max()
    return distances.argmin(axis=-1).astype(np.uint8), np.broadcast_to(
        scale * widest, values.shape
    ).copy()


def _spread(of_groups: Floats, group: int) -> Floats:
    return np.repeat(of_groups, group, axis=1)


def _pack(fields: Bytes, lanes: int, bits: int) -> Bytes:
    """Small integers [blocks, count] into bytes: the next ``lanes`` bytes hold as many integers in
    their lowest bits, then as many in the bits above."""
    runs = fields.reshape(len(fields), -1, 8 // bits, lanes)
    packed = np.zeros((len(fields), runs.shape[1], lanes), np.uint8)
    for index in range(8 // bits):
        packed |= runs[:, :, index] << np.uint8(bits * index)
    return packed.reshape(len(fields), -1)


def _six_bit(scales: Bytes, minima: Bytes) -> Bytes:
    first = [codes[:, :4] | codes[:, 4:] >> 4 << 6 for codes in (scales, minima)]
    return np.concatenate([*first, scales[:, 4:] & 15 | (minima[:, 4:] & 15) << 4], axis=1)


def _join(*parts: NDArray[Any]) -> Bytes:
    return np.concatenate([np.ascontiguousarray(part).view(np.uint8) for part in parts], axis=1)
