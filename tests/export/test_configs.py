"""Every model of the catalogue exports, at toy size, by its own recipe and in its own shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import edge_llm
from edge_llm import catalogue
from edge_llm.export.recipe import load_recipe
from edge_llm.runner.golden import check_golden

ENTRIES = {entry.name: entry for entry in catalogue.list_models()}


@pytest.mark.parametrize("name", ENTRIES)
def test_catalogue_entry(name: str, tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    entry = ENTRIES[name]
    source = tiny_checkpoint(entry.family, tie_word_embeddings=True)
    recipe = load_recipe(entry.recipe, ["gate=off"], model=str(source))
    path = edge_llm.export(recipe, output=tmp_path / f"{name}.edge")
    with edge_llm.load(path, max_sequences=1) as llm:
        assert llm.program.documents.model.family == entry.family
        assert llm.chat([{"role": "user", "content": "hi"}]).stats.prompt_tokens > 2
        check_golden(llm.program)
