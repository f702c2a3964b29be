"""A program as a model of a harness that is not there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_lm_eval import Registry


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    """The registry, with `edge_llm.harness` in it."""
    registry = Registry()
    with pytest.MonkeyPatch.context() as patch:
        for name, module in registry.modules().items():
            patch.setitem(sys.modules, name, module)
        import edge_llm.harness

        assert edge_llm.harness.EdgeLLM is registry.models["edge-llm"]
        yield registry
        for name in [name for name in sys.modules if name.startswith("edge_llm.harness")]:
            del sys.modules[name]
        del edge_llm.harness


@pytest.fixture(scope="module")
def program(tiny_program: Callable[..., Path]) -> str:
    return str(tiny_program("fp32"))


@pytest.fixture
def model(registry: Registry, program: str) -> Iterator[Any]:
    made: Any = registry.models["edge-llm"](program, threads=1, context=128)
    yield made
    made.llm.close()
