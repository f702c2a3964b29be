from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import edge_llm

TinyProgram = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_program(
    tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> TinyProgram:
    """``tiny_program(scheme="fp32", family="llama", **checkpoint) -> path`` of an exported random
    model; equal arguments give the same file."""
    made: dict[str, Path] = {}

    def make(scheme: str = "fp32", family: str = "llama", **checkpoint: object) -> Path:
        key = repr((scheme, family, sorted(checkpoint.items())))
        if key not in made:
            source = tiny_checkpoint(family, **checkpoint)
            recipe = edge_llm.Recipe(model=str(source), scheme=scheme, gate=None, verify=False)
            folder = tmp_path_factory.mktemp("programs")
            made[key] = edge_llm.export(recipe, output=folder / "tiny.edge")
        return made[key]

    return make


@pytest.fixture
def llm(tiny_program: TinyProgram) -> Iterator[edge_llm.LLM]:
    with edge_llm.load(tiny_program(), threads=1) as loaded:
        yield loaded
