"""GGUF tensors as the integers of their blocks, for the types that a program can hold too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_llm.llm.checkpoints.gguf.kquants import (
    Bytes,
    fields,
    five_bit,
    five_bit_k,
    iq4_scales,
    six_bit,
    six_bit_codes,
)
from edge_llm.program.formats import LEVELS, WEIGHT_FORMATS, WeightFormat
from edge_llm.program.integers import Integers

_CHUNK = 2**18  # codes unpacked at a time, so that a table takes little more than its own size

_E2M1, _NL4 = (np.array(LEVELS[code], np.int8) for code in ("e2m1", "nl4"))


@dataclass(frozen=True, slots=True)
class IntegerBlocks:
    """``format`` is what a program holds such blocks in; ``read`` makes that of [blocks, bytes]
    uint8, given the number of rows that they fill."""

    format: WeightFormat
    read: Callable[[Bytes, int], Integers]


def _q4_0(blocks: Bytes, rows: int) -> Integers:
    codes = _codes(blocks, rows, 32, lambda part: fields(part[:, 2:], 16, 4)).view(np.int8)
    codes -= 8
    return Integers(WEIGHT_FORMATS["i4g32"], codes, _half(blocks, 0, rows))


def _q4_1(blocks: Bytes, rows: int) -> Integers:
    codes = _codes(blocks, rows, 32, lambda part: fields(part[:, 4:], 16, 4))
    scale, minimum = _half(blocks, 0, rows), _half(blocks, 2, rows)
    return Integers(WEIGHT_FORMATS["u4g32m"], codes, scale, minimum)


def _q5_0(blocks: Bytes, rows: int) -> Integers:
    codes = _codes(blocks, rows, 32, lambda part: five_bit(part, 2)).view(np.int8)
    codes -= 16
    return Integers(WEIGHT_FORMATS["i5g32"], codes, _half(blocks, 0, rows))


def _q5_1(blocks: Bytes, rows: int) -> Integers:
    codes = _codes(blocks, rows, 32, lambda part: five_bit(part, 4))
    scale, minimum = _half(blocks, 0, rows), _half(blocks, 2, rows)
    return Integers(WEIGHT_FORMATS["u5g32m"], codes, scale, minimum)


def _q8_0(blocks: Bytes, rows: int) -> Integers:
    codes = blocks[:, 2:].view(np.int8).reshape(rows, -1)
    return Integers(WEIGHT_FORMATS["i8g32"], codes, _half(blocks, 0, rows))


def _q4_k(blocks: Bytes, rows: int) -> Integers:
    codes = _codes(blocks, rows, 256, lambda part: fields(part[:, 16:], 32, 4))
    return _with_minima(WEIGHT_FORMATS["u4g32k"], codes, blocks, rows)


def _q5_k(blocks: Bytes, rows: int) -> Integers:
    codes = _codes(blocks, rows, 256, five_bit_k)
    return _with_minima(WEIGHT_FORMATS["u5g32k"], codes, blocks, rows)


def _q6_k(blocks: Bytes, rows: int) -> Integers:
    codes = _codes(blocks, rows, 256, six_bit_codes).view(np.int8)
    codes -= 32
    scale = blocks[:, 192:208].view(np.int8).reshape(rows, -1)
    return Integers(WEIGHT_FORMATS["i6g16k"], codes, scale, factor=_half(blocks, 208, rows))


def _iq4_nl(blocks: Bytes, rows: int) -> Integers:
    codes = _codes(blocks, rows, 32, lambda part: _NL4[fields(part[:, 2:], 16, 4)], np.int8)
    return Integers(WEIGHT_FORMATS["nl4g32"], codes, _half(blocks, 0, rows))


def _iq4_xs(blocks: Bytes, rows: int) -> Integers:
    codes = _codes(blocks, rows, 256, lambda part: _NL4[fields(part[:, 8:], 16, 4)], np.int8)
    scale = iq4_scales(blocks).view(np.int8) - np.int8(32)
    return Integers(
        WEIGHT_FORMATS["nl4g32k"], codes, scale.reshape(rows, -1), factor=_half(blocks, 0, rows)
    )


def _mxfp4(blocks: Bytes, rows: int) -> Integers:
    codes = _codes(blocks, rows, 32, lambda part: _E2M1[fields(part[:, 1:], 16, 4)], np.int8)
    return Integers(WEIGHT_FORMATS["e2m1g32"], codes, blocks[:, 0].reshape(rows, -1).copy())


# By ggml's type number.
INTEGER_BLOCKS: Mapping[int, IntegerBlocks] = MappingProxyType(
    {
        2: IntegerBlocks(WEIGHT_FORMATS["i4g32"], _q4_0),
        3: IntegerBlocks(WEIGHT_FORMATS["u4g32m"], _q4_1),
        6: IntegerBlocks(WEIGHT_FORMATS["i5g32"], _q5_0),
        7: IntegerBlocks(WEIGHT_FORMATS["u5g32m"], _q5_1),
        8: IntegerBlocks(WEIGHT_FORMATS["i8g32"], _q8_0),
        12: IntegerBlocks(WEIGHT_FORMATS["u4g32k"], _q4_k),
        13: IntegerBlocks(WEIGHT_FORMATS["u5g32k"], _q5_k),
        14: IntegerBlocks(WEIGHT_FORMATS["i6g16k"], _q6_k),
        20: IntegerBlocks(WEIGHT_FORMATS["nl4g32"], _iq4_nl),
        23: IntegerBlocks(WEIGHT_FORMATS["nl4g32k"], _iq4_xs),
        39: IntegerBlocks(WEIGHT_FORMATS["e2m1g32"], _mxfp4),
    }
)


def _with_minima(form: WeightFormat, codes: Bytes, blocks: Bytes, rows: int) -> Integers:
    """Return codes with the scales and minima that Q4_K and Q5_K have in common."""
    scale, minimum = (of_groups.reshape(rows, -1) for of_groups in six_bit(blocks))
    return Integers(form, codes, scale, minimum, _half(blocks, 0, rows), _half(blocks, 2, rows))


def _codes(
    blocks: Bytes,
    rows: int,
    size: int,
    unpack: Callable[[Bytes], NDArray[Any]],
    dtype: type[np.integer[Any]] = np.uint8,
) -> NDArray[Any]:
    """Return [rows, K] of what ``unpack`` makes of blocks of ``size`` weights."""
    codes = np.empty((len(blocks), size), dtype)
    step = _CHUNK // size
    for start in range(0, len(blocks), step):
        codes[start : start + step] = unpack(blocks[start : start + step])
    return codes.reshape(rows, -1)


def _half(blocks: Bytes, at: int, rows: int) -> NDArray[np.float16]:
    """Return the little-endian fp16 at byte ``at`` of each block, [rows, blocks of a row]."""
    return blocks[:, at : at + 2].copy().view("<f2").astype(np.float16).reshape(rows, -1)
