"""A dry run says what the export then does, to the byte, and reads and writes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_llm.errors import CheckpointError, ConfigError, SourceError
from edge_llm.export.dry_run import describe, dry_run
from edge_llm.export.lowering.lowered import Lowered
from edge_llm.export.outline import activation_bytes, describe_outline, outline
from edge_llm.export.pipeline import export, make_program
from edge_llm.export.recipes.file import load_recipe
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.llm.checkpoints.source import Checkpoint
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.program.file import Program

Tiny = Callable[..., Path]


def planned(recipe: Recipe) -> dict[str, Any]:
    return dry_run(recipe, tokens=32, rows=4)


def without_weights(source: Path, folder: Path) -> Path:
    """A copy of ``source`` that has no weights."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.index.json"))
    return folder


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", []),
        ("qwen2", ["verify=false", "group_size=64"]),
        ("qwen3", ["overrides.*layers.1.*=f16", "context=100", "kv_dtype=f32"]),
    ],
)
def test_it_says_what_the_export_does(
    family: str,
    settings: list[str],
    tiny_checkpoint: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = tiny_checkpoint(family, tie_word_embeddings=True)
    recipe = load_recipe("8da4w", [*settings, "gate=off"], model=str(source))

    def refuse(checkpoint: Checkpoint, name: str) -> None:
        raise AssertionError(f"{name} was read")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "tensor", refuse)
        patch.setenv("EDGE_LLM_HOME", str(tmp_path / "home"))
        document = planned(recipe)
    assert list(tmp_path.iterdir()) == []

    path = export(recipe, output=tmp_path / "x.edge")
    assert document["file"]["exact"]
    assert document["file"]["bytes"] == document["export"]["disk"] == path.stat().st_size
    with Program.open(path) as program:
        plan, report = program.plan, program.documents.report
        assert document["file"]["tokenizer_bytes"] == sum(
            spec.nbytes for name, spec in program.tensors.items() if name.startswith("tokenizer.")
        )
    got = document["report"]
    # what only the weights say
    report = {**report, "notes": [n for n in report["notes"] if not n.startswith("factors moved")]}
    for key in ("parameters", "weight_bytes", "bits_per_weight", "formats", "tied", "notes"):
        assert got[key] == report[key], key
    unknown = {"sqnr_db": None, "outcome": None}
    assert got["weights"] == [row | unknown for row in report["weights"]]
    assert document["plan"]["instructions"] == len(plan.instructions)
    state_bytes = sum(
        2
        * state.sizes["heads"]
        * state.sizes["k_dim"]
        * {"f16": 2, "f32": 4}[program.documents.model.kv_dtype]
        for state in plan.states
    )
    assert document["kv"]["bytes_per_token"] == state_bytes
    assert document["kv"]["bytes"] == state_bytes * plan.context


def test_a_config_is_enough(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    source = tiny_checkpoint("llama", shards=2, num_hidden_layers=1)
    bare = without_weights(source, tmp_path / "bare")
    whole = planned(load_recipe("8da4w", model=str(source)))
    document = planned(load_recipe("8da4w", model=str(bare)))
    assert not document["file"]["exact"]
    assert document["file"]["bytes"] == pytest.approx(whole["file"]["bytes"], abs=4096)
    unread = {"source": None}
    assert document["report"]["weights"] == [row | unread for row in whole["report"]["weights"]]
    assert "without weights: shapes are those of config.json" in document["report"]["notes"]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    document = planned(load_recipe("8da4w", model=str(bare)))
    assert "without tokenizer: its bytes are not counted" in document["report"]["notes"]
    assert "bytes, about" in describe(document)


def test_the_context_goes_up_to_the_models_own(tiny_checkpoint: Tiny) -> None:
    long = 131_072
    source = tiny_checkpoint("llama", num_hidden_layers=1, max_position_embeddings=long)
    document = planned(load_recipe("8da4w", model=str(source), context=long))
    assert document["context"] == document["trained_context"] == long
    assert document["kv"]["bytes"] == 2 * 2 * 16 * 2 * long  # k and v, 2 heads of 16, float16
    sizes = {row["name"]: row["bytes"] for row in document["report"]["weights"]}
    assert sizes["cos"] == sizes["sin"] == 4 * 8 * long
    assert not any("context" in note for note in document["report"]["notes"])
    usual = planned(load_recipe("8da4w", model=str(source)))
    assert usual["context"] == 8192


@pytest.mark.slow
def test_a_program_of_a_long_context(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    source = tiny_checkpoint("llama", num_hidden_layers=1, max_position_embeddings=131_072)
    recipe = load_recipe("8da4w", model=str(source), context=131_072)
    made = make_program(recipe, output=tmp_path / "x.edge")
    with Program.open(made.path) as program:
        assert program.plan.context == 131_072
        assert program.tensor("cos").shape == (131_072, 8)
    assert made.verification["same_numbers"]["kl"] < 1e-3
    assert made.peak_anonymous_bytes["export"] < 1e9


def test_no_program_comes_of_a_config_alone(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    bare = without_weights(tiny_checkpoint("llama"), tmp_path / "bare")
    with pytest.raises(CheckpointError, match="has no weights"):
        export(load_recipe("8da4w", model=str(bare)), output=tmp_path / "x.edge")
    assert not (tmp_path / "x.edge").exists()


def test_refusals(tiny_checkpoint: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_LLM_HOME", str(tmp_path))
    with pytest.raises(SourceError) as info:
        planned(load_recipe("8da4w", model="smollm2-135m"))
    assert info.value.hint is not None
    assert "a folder with the model's config.json" in info.value.hint
    bare = without_weights(tiny_checkpoint("llama", num_hidden_layers=1), tmp_path / "bare")
    with pytest.raises(ConfigError, match="context is 512, the model's own is 256"):
        planned(load_recipe("8da4w", model=str(bare), context=512))
    with pytest.raises(ConfigError, match="overrides match no weight"):
        planned(load_recipe("8da4w", ["overrides.nothing=i8"], model=str(bare)))
    (bare / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        planned(load_recipe("8da4w", model=str(bare)))


def test_layers_that_are_alike_are_told_once(
    toy_config: Callable[..., DecoderConfig], lowered_toy: Callable[..., Lowered]
) -> None:
    recipe = Recipe(overrides={"*layers.2.mlp*": "i8", "*layers.5.mlp*": "i8"})
    plan = lowered_toy(toy_config(num_hidden_layers=6), recipe).plan
    document = outline(plan)
    assert [part["layers"] for part in document["parts"]] == [None, [0, 1, 3, 4], [2, 5], None]
    text = describe_outline(document)
    assert "each of layers 0-1, 3-4:" in text
    assert "linear 64 -> 96 (i8)" in text
    assert sum(document["operators"].values()) == document["instructions"]


def test_activations_are_those_alive_at_once(
    toy_config: Callable[..., DecoderConfig], lowered_toy: Callable[..., Lowered]
) -> None:
    one, many = (
        lowered_toy(toy_config(num_hidden_layers=layers), Recipe(scheme="fp32")).plan
        for layers in (1, 5)
    )
    # dim 64, ffn 96, not merged: the residual, the normed input, gate and up
    tokens = 4 * 7 * (64 + 64 + 96 + 96)
    rows = 4 * 3 * (64 + 80)  # the last hidden states and the logits
    assert activation_bytes(one, tokens=7, rows=3) == tokens + rows
    assert activation_bytes(many, tokens=7, rows=3) == tokens + rows
    integers = lowered_toy(toy_config(), Recipe(scheme="8da8w")).plan
    assert activation_bytes(integers, tokens=7, rows=3) == tokens + rows + 7 * 96
