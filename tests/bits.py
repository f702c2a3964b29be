"""Comparing float32 results bit by bit, over the instruction sets that run here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_llm import native


def isas() -> list[str]:
    """ "scalar", and the best one here if that is another."""
    return sorted({"scalar", native.isa()}, reverse=True)


def assert_same_bits(got: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))
