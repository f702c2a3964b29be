"""The order of the rows of query and key matrices."""

from __future__ import annotations

from edge_llm.llm.checkpoints.arrays import Array


def half_split(rows: Array, head_dim: int) -> Array:
    """Return the rows of each head, stored for the interleaved rotary convention as
    (0, d, 1, d+1, ...), in the half-split order (0, 1, ..., d, d+1, ...), where d is half of
    ``head_dim``; the later dimensions go along."""
    pairs = rows.reshape(-1, head_dim // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)
