"""One vector of a text from the hidden states of its tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_llm.program.documents import PoolingKind
from edge_llm.runner.executor import Float32


class Pooling:
    """Takes in the hidden states of one text as steps give them, in the order of its tokens.

    Sums are made in float64, one token after the other, so that where steps cut the text changes no
    bit of the result.
    """

    def __init__(self, kind: PoolingKind) -> None:
        self.kind = kind
        self._sum: NDArray[np.float64] | None = None
        self._count = 0

    def rows(self, count: int, remaining: int) -> int:
        """Return of how many of the next ``count`` tokens, the last so many, states are needed;
        ``remaining`` tokens of the text are not computed yet."""
        return count if self.kind == "mean" else int(count == remaining)

    def add(self, states: Float32) -> None:
        """Take in the states of the next tokens, [n, width]."""
        for state in states:
            self._sum = state.astype(np.float64) if self._sum is None else self._sum + state
            self._count += 1

    def forget(self) -> None:
        """Begin again with the first token."""
        self._sum, self._count = None, 0

    def vector(self) -> NDArray[np.float64]:
        """Return the vector of the text, [width]."""
        if self._sum is None:
            raise AssertionError("no token of the text has a hidden state")
        return self._sum / self._count
