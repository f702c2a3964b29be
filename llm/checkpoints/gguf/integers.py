"""GGUF tensors as the integers of their blocks, for the types that a program can hold too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edge_llm.llm.checkpoints.gguf.kquants import Bytes, fields, six_bit
from edge_llm.program.formats import WEIGHT_FORMATS, WeightFormat
from edge_llm.program.integers import Integers

_CHUNK = 2**18  # codes unpacked at a time, so that a table takes little more than its own size


@dataclass(frozen=True, slots=True)
class IntegerBlocks:
    """``format`` is what a program holds such blocks in; ``read`` makes that of [blocks, bytes]
    uint8, given the number of rows that they fill."""

    format: WeightFormat
    read: Callable[[Bytes, int], Integers]


def _q4_0(blocks: Bytes, rows: int) -> Integers:
    codes = _codes(blocks[:, 2:], 16, rows).view(np.int8)
    codes -= 8
    return Integers(WEIGHT_FORMATS["i4g32"], codes, _half(blocks, 0, rows))


def _q4_1(blocks: Bytes, rows: int) -> Integers:
    codes = _codes(blocks[:, 4:], 16, rows)
    scale, minimum = _half(blocks, 0, rows), _half(blocks, 2, rows)
    return Integers(WEIGHT_FORMATS["u4g32m"], codes, scale, minimum)


def _q4_k(blocks: Bytes, rows: int) -> Integers:
    scale, minimum = (of_groups.reshape(rows, -1) for of_groups in six_bit(blocks))
    return Integers(
        WEIGHT_FORMATS["u4g32k"],
        _codes(blocks[:, 16:], 32, rows),
        scale,
        minimum,
        _half(blocks, 0, rows),
        _half(blocks, 2, rows),
    )


# By ggml's type number.
INTEGER_BLOCKS: Mapping[int, IntegerBlocks] = MappingProxyType(
    {
        2: IntegerBlocks(WEIGHT_FORMATS["i4g32"], _q4_0),
        3: IntegerBlocks(WEIGHT_FORMATS["u4g32m"], _q4_1),
        12: IntegerBlocks(WEIGHT_FORMATS["u4g32k"], _q4_k),
    }
)


def _codes(nibbles: Bytes, lanes: int, rows: int) -> Bytes:
    """Return [rows, K] from [blocks, bytes] of two codes each."""
    codes = np.empty((len(nibbles), nibbles.shape[1] * 2), np.uint8)
    step = _CHUNK // codes.shape[1]
    for start in range(0, len(nibbles), step):
        codes[start : start + step] = fields(nibbles[start : start + step], lanes, 4)
    return codes.reshape(rows, -1)


def _half(blocks: Bytes, at: int, rows: int) -> NDArray[np.float16]:
    """Return the little-endian fp16 at byte ``at`` of each block, [rows, blocks of a row]."""
    return blocks[:, at : at + 2].copy().view("<f2").astype(np.float16).reshape(rows, -1)
