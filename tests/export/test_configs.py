"""Every shape of the catalogue's models exports, at toy size, by the models' own recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import edge_llm
from edge_llm import catalogue
from edge_llm.export.origin.load import load
from edge_llm.export.recipes.file import load_recipe
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.runner.evaluation.golden import check_golden

ENTRIES = {entry.name: entry for entry in catalogue.list_models()}


TIED = {"tie_word_embeddings": True}
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
LLAMA3 = ["llama3.1-8b", "llama3.3-70b", "deepseek-r1-distill-llama-8b"]
LLAMA3 += ["deepseek-r1-distill-llama-70b"]
QWEN2 = ["qwen2.5-7b", "qwen2.5-14b", "qwen2.5-32b", "qwen2.5-72b"]
QWEN2 += [f"deepseek-r1-distill-qwen-{size}" for size in ("1.5b", "7b", "14b", "32b")]
# The shapes that the catalogue has, as what tells them apart at toy size -> the models of each.
SHAPES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, LLAMA3),
    (TIED, ["llama3.2-1b", "llama3.2-3b"]),
    (
        TIED | {"rope_parameters": PLAIN_ROPE},
        [f"smollm2-{size}" for size in ("135m", "360m", "1.7b")],
    ),
    ({"rope_parameters": PLAIN_ROPE, "num_key_value_heads": 4}, ["llama2-7b"]),
    ({"sliding_window": None}, ["mistral-7b"]),
    (TIED, [f"qwen2.5-{size}" for size in ("0.5b", "1.5b", "3b")]),
    ({}, QWEN2),
    (
        TIED,
        [f"qwen3-{size}" for size in ("0.6b", "1.7b", "4b")]
        + [f"qwen3-{kind}-{size}" for kind in ("embedding", "reranker") for size in ("0.6b", "4b")],
    ),
    ({}, [f"qwen3-{size}" for size in ("8b", "14b", "32b")]),
    ({"rope_parameters": PLAIN_ROPE, "num_key_value_heads": 4}, ["phi-3-mini-4k"]),
    (
        {
            "num_key_value_heads": 4,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10_000.0,
                "short_factor": [1.0] * 8,
                "long_factor": [2.0] * 8,
            },
        },
        ["phi-3-mini-128k", "phi-3.5-mini"],
    ),
    (TIED, ["phi-4-mini"]),
    (TIED, ["smollm3-3b"]),
]
# The others, whose tables may be one or two.
_LISTED = {name for _, names in SHAPES for name in names}
SHAPES += [(shape, [name]) for name in sorted(ENTRIES.keys() - _LISTED) for shape in ({}, TIED)]


def test_models_of_one_shape_are_of_one_kind() -> None:
    for _, names in SHAPES:
        assert len({(ENTRIES[name].family, ENTRIES[name].recipe) for name in names}) == 1


@pytest.mark.parametrize(("shape", "names"), SHAPES, ids=[names[0] for _, names in SHAPES])
def test_catalogue_entry(
    shape: dict[str, Any], names: list[str], tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    entry = ENTRIES[names[0]]
    source = tiny_checkpoint(entry.family, **shape)
    recipe = load_recipe(entry.recipe, ["gate=off"], model=str(source))
    path = edge_llm.export(recipe, output=tmp_path / f"{entry.name}.edge")
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
