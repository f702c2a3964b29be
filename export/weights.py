"""Quantized and plain weights between the quantize, eager and pack stages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

# 8 MiB of float32: small beside any model, large enough to make Python's part negligible.
CHUNK_ELEMENTS = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class QuantizedWeight:
    """Symmetric integers: ``q`` int8 [N, K] in the range of the format, ``scales`` float32
    [N, K / group] (already rounded to what the file stores), zero point 0.
    The weight they stand for is ``q * scales`` with each scale over ``group`` columns."""

    format: str
    q: torch.Tensor  # (N, K) int8
    scales: torch.Tensor  # (N, K / group) float32
    group: int

    def dequantize(self) -> torch.Tensor:
        """The float32 matrix [N, K] that the integers stand for."""
        n, k = self.q.shape
        grouped = self.q.view(n, k // self.group, self.group).to(torch.float32)
        return (grouped * self.scales.unsqueeze(-1)).view(n, k)


@dataclass(frozen=True, slots=True)
class FloatWeight:
    """A matrix ``values`` float32 [N, K], already rounded to the ``format`` that stores it."""

    format: str
    values: torch.Tensor  # (N, K) float32

    def dequantize(self) -> torch.Tensor:
        """The values themselves."""
        return self.values


PreparedWeight = QuantizedWeight | FloatWeight


def row_chunks(n: int, k: int, *, multiple: int = 1) -> Iterator[slice]:
    """Slices of the rows of a matrix [n, k], each a multiple of ``multiple`` but the last."""
    rows = max(CHUNK_ELEMENTS // k // multiple, 1) * multiple
    for begin in range(0, n, rows):
        yield slice(begin, min(begin + rows, n))
