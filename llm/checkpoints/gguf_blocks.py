"""The block formats of GGUF tensors, and how they become float tensors.

Formulas are those of ggml's block structs: a block holds 32 weights of one row; ``d`` and ``m`` are
fp16; the low nibbles are weights 0-15 and the high nibbles 16-31.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """``size`` weights in ``bytes`` bytes; ``decode`` turns [blocks, bytes] uint8 into a tensor of
    blocks * size elements."""

    name: str
    size: int
    bytes: int
    decode: Callable[[Bytes], torch.Tensor]


def _plain(dtype: torch.dtype) -> Callable[[Bytes], torch.Tensor]:
    return lambda blocks: torch.from_numpy(blocks.reshape(-1).copy()).view(dtype)


def _scale(blocks: Bytes, at: int) -> Floats:
    return blocks[:, at : at + 2].copy().view("<f2").astype(np.float32)  # [blocks, 1]


def _nibbles(blocks: Bytes, at: int) -> Floats:
    packed = blocks[:, at : at + 16]
    values = np.empty((len(blocks), 32), np.float32)
    values[:, :16] = packed & 15
    values[:, 16:] = packed >> 4
    return values


# Arithmetic in place: a vocabulary's table takes hundreds of MB once, and should not twice.


def _q4_0(blocks: Bytes) -> torch.Tensor:
    """w = d * (q - 8)."""
    values = _nibbles(blocks, 2)
    values -= 8
    values *= _scale(blocks, 0)
    return torch.from_numpy(values)


def _q4_1(blocks: Bytes) -> torch.Tensor:
    """w = d * q + m."""
    values = _nibbles(blocks, 4)
    values *= _scale(blocks, 0)
    values += _scale(blocks, 2)
    return torch.from_numpy(values)


def _q8_0(blocks: Bytes) -> torch.Tensor:
    """w = d * q."""
    values = blocks[:, 2:].view(np.int8).astype(np.float32)
    values *= _scale(blocks, 0)
    return torch.from_numpy(values)


# By ggml's type number.
BLOCK_FORMATS = {
    0: BlockFormat("F32", 1, 4, _plain(torch.float32)),
    1: BlockFormat("F16", 1, 2, _plain(torch.float16)),
    2: BlockFormat("Q4_0", 32, 18, _q4_0),
    3: BlockFormat("Q4_1", 32, 20, _q4_1),
    8: BlockFormat("Q8_0", 32, 34, _q8_0),
    30: BlockFormat("BF16", 1, 2, _plain(torch.bfloat16)),
}

# Names for error messages.
UNSUPPORTED_TYPES = {
    6: "Q5_0",
    7: "Q5_1",
    9: "Q8_1",
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
}
