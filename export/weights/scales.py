"""Scale rules of int4 groups: which scale, as float16, a group of weights gets.

"affine" is torchao's ``max|w| / 7.5``; "signed" is ``max|w| / 8`` with the sign that puts that
element on -8; "hqq" starts from whichever of the two leaves less squared error and refines it by
alternating least squares, as torchao's ``hqq_scale_only`` does:

    q = clamp(round_half_even(w / s), -8, 7)        s = sum(w * q) / sum(q * q)

for at most 20 rounds, or until nothing changes. The result counts where, rounded to float16, it
leaves less error than the start.

Every operation is elementwise or a sum in a fixed order, so that a group's scale does not depend on
the groups that are computed beside it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import ExportError

Float32 = NDArray[np.float32]

INT4_RANGE = (-8, 7)
_SMALLEST_F16 = np.float32(2.0**-24)
_LARGEST_F16 = np.float32(65504.0)
_ROUNDS = 20
_BLOCK = 2**18  # weights refined at a time: their numbers stay in the cache
_ONE = np.float32(1.0)


def int4_scales(grouped: Float32, rule: str, name: str) -> Float32:
    """Return the scales [N, G] of weights [N, G, group], float32 with float16's values, never 0.

    Raises:
        ExportError: a scale that float16 cannot hold; names ``name``.
    """
    high, low = grouped.max(axis=2), grouped.min(axis=2)  # (N, G)
    magnitude = np.maximum(high, -low)
    affine = magnitude / np.float32(7.5)
    # the element of largest magnitude lands on -8, so the scale takes its opposite sign
    signed = np.where(-low >= high, magnitude, -magnitude) / np.float32(8.0)
    largest = signed if rule == "signed" else affine
    if (np.abs(largest) > _LARGEST_F16).any():
        raise ExportError(f"{name}: an int4 scale overflows float16")
    if rule == "affine":
        return _as_float16(affine)
    if rule == "signed":
        return _as_float16(signed)
    scales: Float32 = np.empty_like(magnitude)
    flat, weights = scales.reshape(-1), grouped.reshape(-1, grouped.shape[2])
    starts = (_as_float16(signed).reshape(-1), _as_float16(affine).reshape(-1))
    count = _BLOCK // grouped.shape[2]
    for begin in range(0, len(weights), count):
        block = slice(begin, begin + count)
        groups = np.ascontiguousarray(weights[block].T)
        flat[block] = _refined(groups, starts[0][block], starts[1][block])
    return scales


def _as_float16(scales: Float32) -> Float32:
    with np.errstate(over="ignore", under="ignore"):
        rounded: Float32 = scales.astype(np.float16).astype(np.float32)
    rounded[rounded == 0.0] = _SMALLEST_F16
    return rounded


def _refined(weights: Float32, first: Float32, second: Float32) -> Float32:
    """Return the best scales [M] for groups [group, M] from two starts [M]."""
    error, other = _error(weights, first), _error(weights, second)
    start = np.where(other < error, second, first)
    error = np.minimum(error, other)

    scales = start.copy()
    active = np.arange(len(start))
    part, current = weights, start
    for _ in range(_ROUNDS):
        q = _integers(part, current)
        squares = _group_sums(q * q)
        better = np.divide(_group_sums(part * q), squares, out=current.copy(), where=squares > 0.0)
        scales[active] = better
        (moving,) = (better != current).nonzero()
        if not len(moving):
            break
        if len(moving) < len(current):
            active, part = active[moving], part[:, moving]
        current = better[moving]
    scales = _as_float16(scales.clip(-_LARGEST_F16, _LARGEST_F16))
    chosen: Float32 = np.where(_error(weights, scales) < error, scales, start)
    return chosen


def _integers(weights: Float32, scales: Float32) -> Float32:
    q: Float32 = np.rint(weights * (_ONE / scales))
    return q.clip(*INT4_RANGE, out=q)


def _error(weights: Float32, scales: Float32) -> Float32:
    difference = weights - _integers(weights, scales) * scales
    return _group_sums(difference * difference)


def _group_sums(values: Float32) -> Float32:
    """Return sums over the first dimension, a power of two, by halves."""
    while len(values) > 1:
        half = len(values) // 2
        values = values[:half] + values[half:]
    summed: Float32 = values[0]
    return summed
