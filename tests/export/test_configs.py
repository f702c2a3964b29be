"""Every model of the catalogue exports, at toy size, by its own recipe and in its own shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import edge_llm
from edge_llm import catalogue
from edge_llm.export.load import load
from edge_llm.export.recipe import Recipe, load_recipe
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


def test_a_named_model_samples_as_its_authors_recommend(
    tiny_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny_checkpoint("llama")
    by_path = load(Recipe(model=str(source))).generation
    monkeypatch.setattr(catalogue, "resolve", lambda name: source)
    named = load(Recipe(model="smollm2-135m")).generation
    assert named == replace(by_path, temperature=0.2, top_p=0.9) != by_path
    # An entry without recommendations leaves the checkpoint's own.
    assert load(Recipe(model="llama3.2-1b")).generation == by_path
