"""Check that a file holds the numbers that were meant to be in it. The eager models, one of which
reads the file and one the checkpoint, compare them on the way.

Only the products of each chunk of rows with a few fixed random vectors are kept. Products of two
matrices are as far apart as the matrices are, but for chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import inf, log10

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from edge_llm.errors import ExportError
from edge_llm.export.verification.numbers import Numbers, Opened, Rows
from edge_llm.llm.stacks import stack_of
from edge_llm.program.formats import Activations

Float32 = NDArray[np.float32]
Seen = Callable[[str, int, Float32], None]  # a matrix' name, its first row here, the products

_VECTORS = 8
_CHANCE = 6.0  # dB that products may be off; rows in a wrong place are off by 20 and more
_EQUAL = 60.0  # dB: numbers that are equal but for float32's rounding


@dataclass(frozen=True, slots=True)
class _Watched:
    name: str
    numbers: Numbers
    seen: Seen

    @property
    def shape(self) -> tuple[int, int]:
        return self.numbers.shape

    @property
    def activations(self) -> Activations | None:
        return self.numbers.activations

    def rows(self, rows: Rows) -> Float32:
        values = self.numbers.rows(rows)
        begin = rows.start if isinstance(rows, slice) else 0  # the same indices in both models
        # by PyTorch, whose threads are counted here; numpy's library has some of its own
        products = functional.linear(_vectors(values.shape[1]), torch.from_numpy(values))
        self.seen(self.name, begin, products.numpy())
        return values


class ReadBack:
    """The products that both models have made of each matrix."""

    def __init__(self) -> None:
        self._stored: dict[tuple[str, int], Float32] = {}
        self._sums: dict[tuple[str, int], tuple[float, float]] = {}

    def stored(self, opened: Opened) -> Opened:
        """Return the file's numbers, to be read first."""

        def seen(name: str, begin: int, products: Float32) -> None:
            self._stored[name, begin] = products

        return lambda name: _Watched(name, opened(name), seen)

    def meant(self, opened: Opened) -> Opened:
        """Return the checkpoint's numbers, to be read after the file's in the same chunks."""

        def seen(name: str, begin: int, products: Float32) -> None:
            lost = products - self._stored.pop((name, begin))
            self._sums[name, begin] = _energy(products), _energy(lost)

        return lambda name: _Watched(name, opened(name), seen)

    def check(self, expected: Callable[[str], float | None]) -> None:
        """Compare the signal to noise ratio of every matrix or stack that was seen with the one
        that ``expected`` gives for its name, in dB; None: nothing was rounded.

        Raises:
            ExportError: a matrix is further from the checkpoint's than that.
        """
        seen: dict[str, list[tuple[float, float]]] = {}
        for (name, _), sums in self._sums.items():
            seen.setdefault(stack_of(name), []).append(sums)
        for name, parts in seen.items():
            signal, noise = (sum(column) for column in zip(*parts, strict=True))
            got = 10.0 * log10(signal / noise) if signal > 0.0 and noise > 0.0 else inf
            awaited = expected(name)
            least = _EQUAL if awaited is None else min(awaited - _CHANCE, _EQUAL)
            if not got >= least:
                raise ExportError(
                    f"the file does not hold {name} as it was made: the signal to noise ratio is "
                    f"{got:.1f} dB, expected at least {least:.1f} dB",
                    hint="this is a fault of edge-llm or of the machine: please report it",
                )


@cache
def _vectors(k: int) -> torch.Tensor:
    """Return vectors [_VECTORS, k] of 1 and -1."""
    signs = np.random.default_rng(k).integers(0, 2, size=(_VECTORS, k), dtype=np.int8)
    return torch.from_numpy((2 * signs - 1).astype(np.float32))


def _energy(values: Float32) -> float:
    return float(np.square(values, dtype=np.float64).sum())
