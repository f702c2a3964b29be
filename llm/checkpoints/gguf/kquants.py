"""The super-blocks of GGUF tensors: 256 weights with one or two fp16 scales, and a small integer
scale for every 16 or 32 of them.

Formulas are those of ggml's block structs. Each function decodes [blocks, bytes] uint8 into
[blocks, 256] float32; the order of operations is ggml's, so that results are equal to the bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_llm.program.formats import LEVELS

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

IQ4_LEVELS = np.array(LEVELS["nl4"], np.float32)


def half(blocks: Bytes, at: int) -> Floats:
    """The little-endian fp16 at byte ``at`` of each block: [blocks, 1] float32."""
    return blocks[:, at : at + 2].copy().view("<f2").astype(np.float32)


def fields(packed: Bytes, lanes: int, bits: int) -> Bytes:
    """Small integers in the order of the weights: [blocks, bytes] -> [blocks, bytes * 8 / bits].

    A run of ``lanes`` bytes holds the next ``lanes`` integers in its lowest bits, those that follow
    in the bits above, and so on."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    runs = packed.reshape(len(packed), -1, 1, lanes)
    values: Bytes = (runs >> shifts) & np.uint8(2**bits - 1)
    return values.reshape(len(packed), -1)


def joined(low: Bytes, high: Bytes, bits: int) -> Bytes:
    """Integers whose lowest ``bits`` bits are stored apart from those above."""
    values: Bytes = low | high << np.uint8(bits)
    return values


def q2_k(blocks: Bytes, out: Floats) -> None:
    """w = d * s * q - dmin * m, with 4-bit s and m for each 16 weights and 2-bit q."""
    q = fields(blocks[:, 16:80], 32, 2)
    both = fields(blocks[:, :16], 16, 4)
    _affine(out, q, half(blocks, 80), half(blocks, 82), both[:, :16], both[:, 16:])


def q3_k(blocks: Bytes, out: Floats) -> None:
    """w = d * (s - 32) * (q - 4), with 6-bit s for each 16 weights and 3-bit q."""
    q = joined(fields(blocks[:, 32:96], 32, 2), fields(blocks[:, :32], 32, 1), 2)
    scales = joined(fields(blocks[:, 96:104], 8, 4), fields(blocks[:, 104:108], 4, 2), 4)
    _symmetric(out, q, 4, half(blocks, 108), scales.astype(np.float32) - 32)


def q4_k(blocks: Bytes, out: Floats) -> None:
    """w = d * s * q - dmin * m, with 6-bit s and m for each 32 weights and 4-bit q."""
    q = fields(blocks[:, 16:144], 32, 4)
    _affine(out, q, half(blocks, 0), half(blocks, 2), *six_bit(blocks))


def q5_k(blocks: Bytes, out: Floats) -> None:
    """As ``q4_k``, with 5-bit q."""
    _affine(out, five_bit_k(blocks), half(blocks, 0), half(blocks, 2), *six_bit(blocks))


def q6_k(blocks: Bytes, out: Floats) -> None:
    """w = d * s * (q - 32), with an int8 s for each 16 weights and 6-bit q."""
    q = six_bit_codes(blocks)
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32)
    _symmetric(out, q, 32, half(blocks, 208), scales)


def iq4_xs(blocks: Bytes, out: Floats) -> None:
    """w = d * (s - 32) * level[q], with 6-bit s for each 32 weights and 4-bit q."""
    scales = iq4_scales(blocks)
    out[...] = IQ4_LEVELS[fields(blocks[:, 8:136], 16, 4)]
    _scaled(out, half(blocks, 0), scales.astype(np.float32) - 32)


def five_bit(blocks: Bytes, at: int) -> Bytes:
    """Return the codes of Q5_0 and Q5_1: the fifth bits of all 32 weights are in the bytes from
    ``at`` on, before the nibbles."""
    return joined(fields(blocks[:, at + 4 :], 16, 4), fields(blocks[:, at : at + 4], 1, 1), 4)


def five_bit_k(blocks: Bytes) -> Bytes:
    """Return the codes of Q5_K."""
    return joined(fields(blocks[:, 48:176], 32, 4), fields(blocks[:, 16:48], 32, 1), 4)


def six_bit_codes(blocks: Bytes) -> Bytes:
    """Return the codes of Q6_K."""
    return joined(fields(blocks[:, :128], 64, 4), fields(blocks[:, 128:192], 32, 2), 4)


def iq4_scales(blocks: Bytes) -> Bytes:
    """Return the eight scales of IQ4_XS, before 32 is subtracted."""
    return joined(fields(blocks[:, 4:8], 1, 4), fields(blocks[:, 2:4], 1, 2), 4)


def six_bit(blocks: Bytes) -> tuple[Bytes, Bytes]:
    """The eight scales and eight minima in bytes 4-15: the low six bits of bytes 4-7 and 8-11 hold
    the first four of each; the rest have their low halves in 12-15, and their high ones in the top
    bits of the former."""
    low, six = fields(blocks[:, 12:16], 4, 4), np.uint8(6)
    scales, minima = (blocks[:, at : at + 4] for at in (4, 8))
    return (
        np.concatenate([scales & np.uint8(63), joined(low[:, :4], scales >> six, 4)], axis=1),
        np.concatenate([minima & np.uint8(63), joined(low[:, 4:], minima >> six, 4)], axis=1),
    )


def _affine(out: Floats, q: Bytes, d: Floats, dmin: Floats, scales: Bytes, minima: Bytes) -> None:
    out[...] = q
    _scaled(out, d, scales.astype(np.float32))
    groups = out.reshape(len(out), minima.shape[1], -1)
    groups -= (dmin * minima.astype(np.float32))[:, :, None]


def _symmetric(out: Floats, q: Bytes, zero: int, d: Floats, scales: Floats) -> None:
    out[...] = q
    out -= zero
    _scaled(out, d, scales)


def _scaled(out: Floats, d: Floats, scales: Floats) -> None:
    """Multiplies each group of weights by ``d`` and its own scale: [blocks, groups]."""
    groups = out.reshape(len(out), scales.shape[1], -1)
    groups *= (d * scales)[:, :, None]
