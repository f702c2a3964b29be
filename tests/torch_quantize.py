"""The formulas of `export.weights`, in PyTorch: the oracle of the code that needs none."""

from __future__ import annotations

import torch

from edge_llm.errors import ExportError
from edge_llm.program.formats import WeightFormat
from edge_llm.program.integers import Integers

_SMALLEST_F16 = 2.0**-24
_LARGEST_F16 = 65504.0
_ROUNDS = 20
_SEARCH_ROUNDS = 6
_BLOCK = 2**18  # weights refined at a time: their numbers stay in the cache


def scales_of(grouped: torch.Tensor, bits: int, rule: str, name: str) -> torch.Tensor:
    """Scales [N, G] of weights [N, G, group] for codes with a sign, float32 with float16's values,
    never 0.

    Raises:
        ExportError: a scale that float16 cannot hold; names ``name``.
    """
    high = grouped.amax(dim=2)  # (N, G)
    low = grouped.amin(dim=2)
    magnitude = torch.maximum(high, -low)
    steps = 2 ** (bits - 1)
    affine = magnitude / (steps - 0.5)
    # the element of largest magnitude lands on -steps, so the scale takes its opposite sign
    signed = torch.where(-low >= high, magnitude, -magnitude) / steps
    largest = signed if rule == "signed" else affine
    if bool((largest.abs() > _LARGEST_F16).any()):
        raise ExportError(f"{name}: an int{bits} scale overflows float16")
    if rule == "affine":
        return _as_float16(affine)
    if rule == "signed":
        return _as_float16(signed)
    scales = torch.empty_like(magnitude)
    flat, weights = scales.view(-1), grouped.reshape(-1, grouped.shape[2])
    starts = (_as_float16(signed).view(-1), _as_float16(affine).view(-1))
    count = _BLOCK // grouped.shape[2]
    for begin in range(0, len(weights), count):
        block = slice(begin, begin + count)
        part = weights[block].T.contiguous()
        flat[block] = _refined(part, steps, starts[0][block], starts[1][block])
    return scales


def _as_float16(scales: torch.Tensor) -> torch.Tensor:
    rounded = scales.to(torch.float16).to(torch.float32)
    return torch.where(rounded == 0.0, _SMALLEST_F16, rounded)


def _refined(
    weights: torch.Tensor, steps: int, first: torch.Tensor, second: torch.Tensor
) -> torch.Tensor:
    """The best scales [M] for groups [group, M] from two starts [M]."""
    error, other = _error(weights, steps, first), _error(weights, steps, second)
    start = torch.where(other < error, second, first)
    error = torch.minimum(error, other)

    scales = start.clone()
    active = torch.arange(len(start))
    part, current = weights, start
    for _ in range(_ROUNDS):
        q = _integers(part, steps, current)
        squares = _group_sums(q * q)
        better = _group_sums(part * q) / squares
        better = torch.where(squares > 0.0, better, current)
        scales[active] = better
        moving = (better != current).nonzero().view(-1)
        if not len(moving):
            break
        if len(moving) < len(current):
            active, part = active[moving], part[:, moving]
        current = better[moving]
    scales = _as_float16(scales.clamp(-_LARGEST_F16, _LARGEST_F16))
    return torch.where(_error(weights, steps, scales) < error, scales, start)


def weighted_scales(grouped: torch.Tensor, bits: int, columns: torch.Tensor) -> torch.Tensor:
    """The scales [N, G] of "hqq" for weights [N, G, group] whose columns [G, group] count
    differently."""
    steps = 2 ** (bits - 1)
    high, low = grouped.amax(dim=2), grouped.amin(dim=2)
    magnitude = torch.maximum(high, -low)
    signed = torch.where(-low >= high, magnitude, -magnitude) / steps
    affine = magnitude / (steps - 0.5)
    weights = grouped.permute(2, 0, 1)  # (group, N, G)
    counts = columns.T[:, None]  # (group, 1, G)

    def error(scales: torch.Tensor) -> torch.Tensor:
        difference = weights - _integers(weights, steps, scales) * scales
        return _group_sums(difference * difference * counts)

    def settled(scales: torch.Tensor) -> torch.Tensor:
        for _ in range(_SEARCH_ROUNDS):
            q = _integers(weights, steps, scales)
            squares = _group_sums(q * q * counts)
            better = _group_sums(weights * q * counts) / squares
            scales = torch.where(squares > 0.0, better, scales)
        return _as_float16(scales.clamp(-_LARGEST_F16, _LARGEST_F16))

    best = _as_float16(signed)
    for part in (1.0, 0.9, 0.8, 0.7):
        for whole in (_as_float16(signed), _as_float16(affine)):
            start = _as_float16(whole * torch.tensor(part))
            for scales in (start, settled(start)):
                best = torch.where(error(scales) < error(best), scales, best)
    return best


def _integers(weights: torch.Tensor, steps: int, scales: torch.Tensor) -> torch.Tensor:
    return (weights * (1.0 / scales)).round_().clamp_(-steps, steps - 1)


def _error(weights: torch.Tensor, steps: int, scales: torch.Tensor) -> torch.Tensor:
    difference = weights - _integers(weights, steps, scales) * scales
    return _group_sums(difference * difference)


def _group_sums(values: torch.Tensor) -> torch.Tensor:
    """Sums over the first dimension, a power of two, by halves."""
    while len(values) > 1:
        half = len(values) // 2
        values = values[:half] + values[half:]
    return values[0]


INT8_RANGE = (-127, 127)


def int8(values: torch.Tensor, form: WeightFormat) -> Integers:
    """Return rows [N, K] in int8, a scale a row."""
    largest = values.abs().amax(dim=1, keepdim=True)  # (N, 1)
    scales = (largest / 127.0).clamp(min=torch.finfo(torch.float32).smallest_normal)
    q = torch.round(values * (1.0 / scales)).clamp(*INT8_RANGE).to(torch.int8)
    return Integers(form, q.numpy(), scales.numpy())


def groups(
    values: torch.Tensor,
    form: WeightFormat,
    scale_rule: str,
    columns: torch.Tensor | None = None,
) -> Integers:
    """Return rows [N, K] in codes with a sign, a scale a group; ``columns`` [K] as the quantize
    stage has it."""
    n, k = values.shape
    grouped = values.view(n, k // form.group, form.group)
    if columns is None:
        scales = scales_of(grouped, form.bits, scale_rule, "w")  # float16's values
    else:
        scales = weighted_scales(grouped, form.bits, columns.view(-1, form.group))
    q = _integers(grouped, 2 ** (form.bits - 1), scales.unsqueeze(-1))
    codes = q.to(torch.int8).view(n, k).numpy()
    return Integers(form, codes, scales.to(torch.float16).numpy())
