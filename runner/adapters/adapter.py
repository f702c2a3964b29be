"""Low-rank adapters as numbers, by the parameters of the model that they change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LowRank:
    """What an adapter adds to one parameter W [n, k]: ``up() @ down()``, of ``down`` [rank, k] and
    ``up`` [n, rank] float32, the scale included; to a ``table`` of embeddings W [n, dim]
    ``down().T @ up().T``, of ``down`` [rank, n] and ``up`` [dim, rank]. Both are read when they
    are called. ``code`` is the narrowest type ("f16", "bf16", "f32") that holds them as the
    adapter's file does."""

    rank: int
    down: Callable[[], Float32]
    up: Callable[[], Float32]
    table: bool = False
    code: str = "f32"


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter: ``pairs`` by parameter. ``digest`` (32 bytes) stands for all that its numbers
    follow from."""

    name: str
    digest: bytes
    pairs: Mapping[str, LowRank]
