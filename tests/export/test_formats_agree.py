"""One checkpoint in every file format gives one program."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures_checkpoints import LLAMA3_ROPE

from edge_llm.export.pipeline import export
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.program.file import Program

Factory = Callable[..., Path]

# The length that Meta's code and Llama's GGUF files take for granted.
LLAMA = {"rope_parameters": LLAMA3_ROPE | {"original_max_position_embeddings": 8192}}
# family, its config, the program's context: phi3's rope has two regimes
CASES: list[Any] = [
    pytest.param("llama", LLAMA, 64),
    pytest.param("phi3", {}, 128),
    pytest.param("phi3", {}, 64, marks=pytest.mark.slow),
    pytest.param("mistral", {"sliding_window": None}, 64, marks=pytest.mark.slow),
    pytest.param("qwen2", {"tie_word_embeddings": True}, 64, marks=pytest.mark.slow),
    pytest.param("qwen3", {}, 64, marks=pytest.mark.slow),
    # the one interval of layers without rotation that llama.cpp knows
    pytest.param(
        "smollm3",
        {"no_rope_layer_interval": 4, "no_rope_layers": None, "num_hidden_layers": 4},
        64,
        marks=pytest.mark.slow,
    ),
]


def weights(source: Path, target: Path, scheme: str, context: int) -> dict[str, bytes]:
    """The bytes of each weight and table of the exported program, by name."""
    recipe = Recipe(model=str(source), scheme=scheme, context=context, gate=None, verify=False)
    with Program.open(export(recipe, output=target)) as program:
        return {
            f"{weight.tensor} {weight.format.name} {weight.shape}": bytes(
                program.weight_data(weight)
            )
            for weight in program.plan.weights
        }


@pytest.mark.parametrize(("family", "config", "context"), CASES)
def test_gguf_and_its_source(
    family: str,
    config: dict[str, Any],
    context: int,
    tiny_checkpoint: Factory,
    make_gguf: Factory,
    tmp_path: Path,
) -> None:
    folder = tiny_checkpoint(family, dtype="float16", **{"num_hidden_layers": 1} | config)
    expected = weights(folder, tmp_path / "source.edge", "8da4w", context)
    assert any("cos" in name for name in expected)
    for quant in ("F32", "F16"):
        made = make_gguf(folder, quant, name=quant)
        assert weights(made, tmp_path / f"{quant}.edge", "8da4w", context) == expected


def test_meta_and_its_source(tiny_checkpoint: Factory, make_meta: Factory, tmp_path: Path) -> None:
    folder = tiny_checkpoint("llama", dtype="bfloat16", num_hidden_layers=1, **LLAMA)
    meta = make_meta(folder, shards=2)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(folder / name, meta / name)
    made = weights(meta, tmp_path / "meta.edge", "8da4w", 128)
    assert made == weights(folder, tmp_path / "source.edge", "8da4w", 128)


def test_integers_of_q4_0_are_taken_over(
    tiny_checkpoint: Factory, make_gguf: Factory, tmp_path: Path
) -> None:
    file = make_gguf(tiny_checkpoint("llama", num_hidden_layers=1, **LLAMA), "Q4_0")
    path = export(Recipe(model=str(file), gate=None, verify=False), output=tmp_path / "x.edge")
    with Program.open(path) as program:
        rows = program.documents.report["weights"]
    taken_over = {row["name"] for row in rows if row["outcome"] == "unchanged"}
    assert taken_over == {row["name"] for row in rows if row["format"] != "raw_f32"}
    assert len(taken_over) == 9  # head and embedding too
