"""The order of the rows of query and key matrices."""

from __future__ import annotations

import torch


def half_split(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Rows of each head from the interleaved rotary convention, (0, d, 1, d+1, ...), to the
    half-split one, (0, 1, ..., d, d+1, ...), where d is half of ``head_dim``; the later
    dimensions go along."""
    pairs = rows.reshape(-1, head_dim // 2, 2, *rows.shape[1:])
    return pairs.transpose(1, 2).reshape(rows.shape)
