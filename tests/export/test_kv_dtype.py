"""The recipe's KV dtype, from the export to what the program computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_llm.export.pipeline import make_program
from edge_llm.export.recipes.file import load_recipe
from edge_llm.program.file import Program


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_an_int8_cache_computes_what_eager_does(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, family: str
) -> None:
    source = tiny_checkpoint(family)
    recipe = load_recipe("fp32", ["kv_dtype=i8"], model=str(source))
    made = make_program(recipe, output=tmp_path / "i8.edge")
    with Program.open(made.path) as program:
        assert program.documents.model.kv_dtype == "i8"
    same, quality = made.verification["same_numbers"], made.verification["unquantized"]
    assert same["kl"] < quality["kl"] / 10
    assert 0 < quality["kl"] < 1e-3  # the cache is the one thing that was rounded
