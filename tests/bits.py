"""Comparing float32 results bit by bit, over the instruction sets that run here."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_llm import native
from edge_llm.errors import NativeError

INSTRUCTION_SETS = (
    "scalar",
    "avx2",
    "avxvnni",
    "avx512vnni",
    "neon",
    "neon_dotprod",
    "neon_i8mm",
)


def isas() -> list[str]:
    """Those that run here, the portable one first."""
    return [name for name in INSTRUCTION_SETS if _runs(name)]


def _runs(name: str) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_LLM_ISA", name)
        try:
            return native.isa() == name
        except NativeError:
            return False


def assert_same_bits(got: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))
