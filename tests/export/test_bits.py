"""Mixes of formats under a budget of bits: kept, spent where it counts, and exported again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edge_llm.cli.main import main
from edge_llm.errors import ConfigError
from edge_llm.export.dry_run import dry_run
from edge_llm.export.outcome import Outcome
from edge_llm.export.pipeline import make_program
from edge_llm.export.recipes.file import load_recipe, recipe_text
from edge_llm.export.recipes.recipe import Gate, Recipe
from edge_llm.program.file import Program

Tiny = Callable[..., Path]

TEXT = "The little boat went out to sea at dawn, and nobody saw it come home again. " * 12


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def made(source: Path, output: Path, *settings: str, recipe: str = "8da4w") -> Outcome:
    wanted = load_recipe(recipe, ["verify=false", *settings], model=str(source))
    return make_program(wanted, output=output)


def formats(outcome: Outcome) -> dict[str, str]:
    return {row["name"]: row["format"] for row in outcome.report["weights"]}


def bits(outcome: Outcome) -> float:
    return float(outcome.report["bits_per_weight"])


def on_a_grid(source: Path, name: str, folder: Path) -> Path:
    """Return a copy in which int4 holds a matrix exactly."""
    source = shutil.copytree(source, folder)
    path = source / "model.safetensors"
    tensors = load_file(path)
    random = np.random.default_rng(0)
    codes = random.integers(-8, 8, tensors[name].shape)
    codes[:, ::32] = -8  # what the scale of a group is found by
    tensors[name] = (codes / 32.0).astype(np.float32)
    save_file(tensors, path, metadata={"format": "pt"})
    return source


@pytest.mark.parametrize(("family", "wanted"), [("llama", 6.3), ("qwen3_moe", 5.9), ("phi3", 6.7)])
def test_the_budget_is_kept_and_spent(
    family: str, wanted: float, tiny_checkpoint: Tiny, text: Path, tmp_path: Path
) -> None:
    source = tiny_checkpoint(family)
    stages: list[str] = []
    recipe = load_recipe(
        "8da4w", [f"calibration={text}", f"bits={wanted}", "verify=false"], model=str(source)
    )
    got = make_program(
        recipe,
        output=tmp_path / "x.edge",
        progress=lambda stage, done, total: stages.append(f"{stage} {done}/{total}"),
    )
    assert wanted - 0.1 < bits(got) <= wanted
    chosen = formats(got)
    assert len(set(chosen.values()) - {"raw_f32"}) > 1
    shown = [stage for stage in stages if stage.startswith("allocate")]
    assert len(shown) > 1
    assert len(set(shown[-1].split()[1].split("/"))) == 1


@pytest.mark.parametrize("layer", [0, 1])
def test_matrices_that_lose_more_get_more(
    layer: int, tiny_checkpoint: Tiny, text: Path, tmp_path: Path
) -> None:
    name = "model.layers.{}.mlp.down_proj.weight"
    exact, rounded = name.format(layer), name.format(1 - layer)
    source = on_a_grid(tiny_checkpoint("llama"), exact, tmp_path / "model")
    settings = [f"calibration={text}", "bits=7.5", "activations=group"]
    got = formats(made(source, tmp_path / "x.edge", *settings))
    assert got[exact] == "i4g32"
    assert got[rounded] in ("i6g32", "i8")


def test_matrices_of_one_tensor_are_chosen_one_by_one(
    tiny_checkpoint: Tiny, text: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(tiny_checkpoint("llama"), tmp_path / "model")
    path = source / "model.safetensors"
    tensors = load_file(path)
    gate = "model.layers.0.mlp.gate_proj.weight"
    tensors[gate] = np.zeros_like(tensors[gate])  # loses nothing in any format
    save_file(tensors, path, metadata={"format": "pt"})
    got = formats(made(source, tmp_path / "x.edge", f"calibration={text}", "bits=7.5"))
    assert got[gate].startswith("i4")
    assert got[gate.replace("gate", "up")] in ("i6g32", "i8")


def test_less_than_the_least_is_refused_before_anything_is_read(
    tiny_checkpoint: Tiny, text: Path, tmp_path: Path
) -> None:
    source = tiny_checkpoint("llama")
    with pytest.raises(ConfigError, match=r"bits is 4\.5, but the least .* is \d\.\d\d") as caught:
        made(source, tmp_path / "x.edge", f"calibration={text}", "bits=4.5")
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt"}
    least = float(str(caught.value).split()[-1])
    assert bits(made(source, tmp_path / "x.edge", f"calibration={text}", f"bits={least}")) <= least
    with pytest.raises(ConfigError, match="the least"):
        made(source, tmp_path / "y.edge", f"calibration={text}", f"bits={least - 0.01}")


@pytest.mark.parametrize("rotate", ["null", "all"])
def test_a_mix_makes_the_same_file_again(
    rotate: str, tiny_checkpoint: Tiny, text: Path, tmp_path: Path
) -> None:
    source = tiny_checkpoint("llama")
    named = ["activations=group", "overrides.*layers.0*k_proj.weight=i6g32", f"rotate={rotate}"]
    got = made(source, tmp_path / "x.edge", f"calibration={text}", "bits=6.5", *named)
    assert formats(got)["model.layers.0.self_attn.k_proj.weight"] == "i6g32"
    assert got.mix is not None
    assert ("rotate: all" in got.mix) == (rotate == "all")
    (tmp_path / "mix.yaml").write_text(got.mix, encoding="utf-8")
    again = made(source, tmp_path / "again.edge", recipe=str(tmp_path / "mix.yaml"))
    assert again.mix is None
    assert again.path.read_bytes() == got.path.read_bytes()
    with Program.open(got.path) as program:
        stored = program.documents.recipe
    assert stored["bits"] is None
    assert next(iter(stored["overrides"])) == "*layers.0*k_proj.weight"
    assert len(stored["overrides"]) > 3


def test_every_matrix_can_have_eight_bits(
    tiny_checkpoint: Tiny, text: Path, tmp_path: Path
) -> None:
    """No place is left then where factors are sought by the formats themselves, nor anything else
    for a calibration to do."""
    source = tiny_checkpoint("llama")
    got = made(
        source, tmp_path / "x.edge", f"calibration={text}", "bits=10", "head=i8", "embedding=i8"
    )
    assert {form for name, form in formats(got).items() if "_proj" in name} == {"i8"}
    assert got.mix is not None
    (tmp_path / "mix.yaml").write_text(got.mix, encoding="utf-8")
    again = made(source, tmp_path / "again.edge", recipe=str(tmp_path / "mix.yaml"))
    assert again.path.read_bytes() == got.path.read_bytes()


def test_a_recipe_that_names_all_leaves_nothing_to_choose(
    tiny_checkpoint: Tiny, text: Path, tmp_path: Path
) -> None:
    settings = [f"calibration={text}", "bits=6.5", "linear=i4g32"]
    with pytest.raises(ConfigError, match="there is no matrix to choose a format for"):
        made(tiny_checkpoint("llama"), tmp_path / "x.edge", *settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 5.5}, "without a calibration nothing tells where"),
        ({"bits": 5.5, "calibration": "t", "scheme": "8da8w"}, "scheme 8da8w has no formats"),
        ({"bits": 0, "calibration": "t"}, "bits is 0, expected bits per weight"),
        ({"bits": float("nan"), "calibration": "t"}, "bits is nan, expected"),
        ({"bits": True, "calibration": "t"}, "bits is [Tt]rue, expected"),
        ({"bits": "5", "calibration": "t"}, "bits is '5', expected"),
    ],
)
def test_recipes_that_contradict_themselves(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe(**options)


def test_a_dry_run_cannot_know_the_mix(tiny_checkpoint: Tiny) -> None:
    recipe = Recipe(model=str(tiny_checkpoint("llama")), calibration="builtin", bits=6.5)
    with pytest.raises(ConfigError, match=r"bits is 6\.5, whose mix .* has read the weights"):
        dry_run(recipe, tokens=1, rows=1)


def test_a_recipe_is_written_as_it_is_read(tmp_path: Path) -> None:
    recipes = [
        Recipe(),
        Recipe(scheme="fp16", gate=None, verify=False, context=100),
        Recipe(
            overrides={"*é: #": "i8", "b": "i4g32"},
            adapters=[{"path": "a b", "weight": 0.5}],
            gate=Gate(max_kl=1e-7),
            calibration="builtin",
            bits=6,
        ),
    ]
    for recipe in recipes:
        path = tmp_path / "recipe.yaml"
        path.write_text(recipe_text(recipe), encoding="utf-8")
        assert load_recipe(path) == recipe


def test_the_verb_shows_a_recipe(
    tiny_checkpoint: Tiny, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, path = str(tiny_checkpoint("llama")), tmp_path / "x.edge"
    command = ["export", source, "--calibrate", str(text), "--set", "verify=false"]
    assert main([*command, "--bits", "6.5", "-o", str(path)]) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == str(path)
    before, _, after = shown.err.partition("(--recipe FILE):\n")
    assert before
    mix = after[: after.rindex("x.edge: ")]
    (tmp_path / "mix.yaml").write_text(mix, encoding="utf-8")
    again = tmp_path / "again.edge"
    command = ["export", source, "--recipe", str(tmp_path / "mix.yaml"), "-o", str(again)]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mix"] is None
    assert again.read_bytes() == path.read_bytes()
    assert main([*command, "--bits", "2"]) != 0
    assert "the least that this model can have" in capsys.readouterr().err
