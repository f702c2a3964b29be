"""The block formats of GGUF tensors, and how they become float tensors.

Formulas are those of ggml's block structs. Here: plain numbers, and blocks of 32 weights of one row
whose ``d`` and ``m`` are fp16, with the low nibbles weights 0-15 and the high nibbles 16-31.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_llm.llm.checkpoints.arrays import BFLOAT16, Array
from edge_llm.llm.checkpoints.gguf import kquants
from edge_llm.llm.checkpoints.gguf.kquants import (
    IQ4_LEVELS,
    Bytes,
    Floats,
    fields,
    five_bit,
    half,
)
from edge_llm.program.formats import LEVELS

# Weights decoded at a time. A vocabulary's table takes hundreds of MB once, and should not twice.
CHUNK = 2**18


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """``size`` weights in ``bytes`` bytes; ``decode`` turns [blocks, bytes] uint8 into an array
    of blocks * size elements."""

    name: str
    size: int
    bytes: int
    decode: Callable[[Bytes], Array]


def _plain(name: str, dtype: np.dtype[Any]) -> BlockFormat:
    return BlockFormat(name, 1, dtype.itemsize, lambda blocks: blocks.reshape(-1).view(dtype))


def _packed(
    name: str, size: int, bytes_: int, fill: Callable[[Bytes, Floats], None]
) -> BlockFormat:
    def decode(blocks: Bytes) -> Array:
        values = np.empty((len(blocks), size), np.float32)
        step = CHUNK // size
        # Hostile scales may be infinite: the weights then are, or are not numbers, as in ggml.
        with np.errstate(invalid="ignore", over="ignore"):
            for start in range(0, len(blocks), step):
                fill(blocks[start : start + step], values[start : start + step])
        return values

    return BlockFormat(name, size, bytes_, decode)


def _q4_0(blocks: Bytes, out: Floats) -> None:
    """w = d * (q - 8)."""
    out[...] = fields(blocks[:, 2:], 16, 4)
    out -= 8
    out *= half(blocks, 0)


def _q4_1(blocks: Bytes, out: Floats) -> None:
    """w = d * q + m."""
    out[...] = fields(blocks[:, 4:], 16, 4)
    out *= half(blocks, 0)
    out += half(blocks, 2)


def _q5_0(blocks: Bytes, out: Floats) -> None:
    """w = d * (q - 16); the fifth bits of all weights come before the nibbles."""
    out[...] = five_bit(blocks, 2)
    out -= 16
    out *= half(blocks, 0)


def _q5_1(blocks: Bytes, out: Floats) -> None:
    """w = d * q + m; bits as in Q5_0."""
    out[...] = five_bit(blocks, 4)
    out *= half(blocks, 0)
    out += half(blocks, 2)


def _q8_0(blocks: Bytes, out: Floats) -> None:
    """w = d * q."""
    out[...] = blocks[:, 2:].view(np.int8)
    out *= half(blocks, 0)


def _iq4_nl(blocks: Bytes, out: Floats) -> None:
    """w = d * level[q]."""
    out[...] = IQ4_LEVELS[fields(blocks[:, 2:], 16, 4)]
    out *= half(blocks, 0)


_E2M1 = np.array(LEVELS["e2m1"], np.float32)


def _mxfp4(blocks: Bytes, out: Floats) -> None:
    """w = 2^(e - 128) * level[q]."""
    out[...] = _E2M1[fields(blocks[:, 1:], 16, 4)]
    out *= np.ldexp(np.float32(1.0), blocks[:, :1].astype(np.int32) - 128)


# By ggml's type number.
BLOCK_FORMATS = {
    0: _plain("F32", np.dtype(np.float32)),
    1: _plain("F16", np.dtype(np.float16)),
    2: _packed("Q4_0", 32, 18, _q4_0),
    3: _packed("Q4_1", 32, 20, _q4_1),
    6: _packed("Q5_0", 32, 22, _q5_0),
    7: _packed("Q5_1", 32, 24, _q5_1),
    8: _packed("Q8_0", 32, 34, _q8_0),
    10: _packed("Q2_K", 256, 84, kquants.q2_k),
    11: _packed("Q3_K", 256, 110, kquants.q3_k),
    12: _packed("Q4_K", 256, 144, kquants.q4_k),
    13: _packed("Q5_K", 256, 176, kquants.q5_k),
    14: _packed("Q6_K", 256, 210, kquants.q6_k),
    20: _packed("IQ4_NL", 32, 18, _iq4_nl),
    23: _packed("IQ4_XS", 256, 136, kquants.iq4_xs),
    30: _plain("BF16", BFLOAT16),
    39: _packed("MXFP4", 32, 17, _mxfp4),
}

# Names for error messages.
UNSUPPORTED_TYPES = {
    9: "Q8_1",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    21: "IQ3_S",
    22: "IQ2_S",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    40: "NVFP4",
}
