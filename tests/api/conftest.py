from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import edge_llm


@pytest.fixture
def llm(tiny_program: Callable[..., Path]) -> Iterator[edge_llm.LLM]:
    """A tiny random fp32 model."""
    with edge_llm.load(tiny_program(), threads=1) as loaded:
        yield loaded
