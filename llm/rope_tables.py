"""The frequencies of rotary position embedding, and the tables of their cosines and sines."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edge_llm.llm.rope import (
    FrequencyDivisors,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    ProportionalScaling,
    Rope,
    YarnScaling,
)

_BLOCK = 4096  # positions at a time: float64 takes several times what is kept


def table_names(index: int) -> tuple[str, str]:
    """Return the names of the buffers that hold the tables of a decoder's rope of that index."""
    return ("cos", "sin") if index == 0 else (f"cos_{index}", f"sin_{index}")


def inverse_frequencies(rope: Rope, context: int) -> NDArray[np.float64]:
    """Return the angle per position of each rotated pair in a program of ``context`` tokens:
    [dim / 2].

    The base rule is theta^(-2i / dim) (RoFormer, section 3.2.2). llama3 is the rule
    published with Llama 3.1: wavelengths beyond original / low are slowed by ``factor``, those
    under original / high are kept, and a linear ramp over original / wavelength blends in between.
    yarn is section 3.2 of the YaRN paper (arXiv 2309.00071): a ramp over the pairs instead.
    longrope divides by the factors of the program's regime. proportional is Gemma 4's: pairs that
    do not rotate have the frequency 0.
    """
    dim = rope.dim
    base: NDArray[np.float64] = np.power(rope.theta, -(np.arange(0, dim, 2) / dim))
    match rope.scaling:
        case None:
            return base
        case LinearScaling(factor):
            return base / factor
        case ProportionalScaling(pairs, factor):
            return np.where(np.arange(dim // 2) < pairs, base / factor, 0.0)
        case FrequencyDivisors(values):
            return base / np.array(values, np.float64)
        case LongRopeScaling(short, long, original):
            values = short if context <= original else long
            return base / np.array(values, np.float64)
        case Llama3Scaling(factor, low, high, original):
            turns = original * base / (2 * math.pi)  # rotations within the original context
            kept = ((turns - low) / (high - low)).clip(0.0, 1.0)
            return base * (kept + (1.0 - kept) / factor)
        case YarnScaling() as yarn:
            first, last = (
                # the (fractional) pair that turns this often within the original context
                dim
                * math.log(yarn.original_context / (turns * 2 * math.pi))
                / (2 * math.log(rope.theta))
                for turns in (yarn.beta_fast, yarn.beta_slow)
            )
            if yarn.truncate:
                first, last = math.floor(first), math.ceil(last)
            first, last = max(first, 0), min(last, dim - 1)
            if first == last:
                last += 0.001  # a step instead of a ramp
            slowed = ((np.arange(dim // 2) - first) / (last - first)).clip(0.0, 1.0)
            return base * (slowed / yarn.factor + (1.0 - slowed))


def rope_tables(rope: Rope, context: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return cosines and sines for positions 0..context-1, [context, dim / 2] each, times the
    attention factor of the scaling rule and the rope's growth, computed in float64 and rounded
    once.

    ``context`` is the program's and decides the regime of LongRoPE."""
    factor = 1.0
    if isinstance(rope.scaling, LongRopeScaling | YarnScaling):
        factor = rope.scaling.attention_factor
    frequencies = inverse_frequencies(rope, context)
    cos, sin = (np.empty((context, len(frequencies)), np.float32) for _ in range(2))
    for begin in range(0, context, _BLOCK):
        end = min(begin + _BLOCK, context)
        positions = np.arange(begin, end, dtype=np.float64)
        angles = np.outer(positions, frequencies)
        factors = factor * _growth(rope, positions)[:, None]
        cos[begin:end] = np.cos(angles) * factors
        sin[begin:end] = np.sin(angles) * factors
    return cos, sin


def _growth(rope: Rope, positions: NDArray[np.float64]) -> NDArray[np.float64]:
    if rope.growth is None:
        return np.ones_like(positions)
    return 1.0 + rope.growth.beta * np.log1p(np.floor(positions / rope.growth.length))


def rope_note(rope: Rope, context: int) -> str | None:
    """Return a line for the report where the program's context decides what is computed."""
    scaling = rope.scaling
    if not isinstance(scaling, LongRopeScaling):
        return None
    regime, relation = (
        ("short", "within") if context <= scaling.original_context else ("long", "beyond")
    )
    return (
        f"rope: the {regime} factors of longrope, for a context {relation} the "
        f"{scaling.original_context} tokens trained with first, at every length "
        f"(attention factor {scaling.attention_factor:.6g})"
    )
