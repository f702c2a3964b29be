"""Recipes: files, overrides, and errors that name what was got and what is valid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_llm.errors import ConfigError
from edge_llm.export.recipes.file import load_recipe, recipe_names
from edge_llm.export.recipes.recipe import Gate, Recipe
from edge_llm.export.recipes.schemes import SCHEMES


def test_there_is_a_recipe_for_each_scheme() -> None:
    assert sorted(recipe_names()) == sorted(SCHEMES)
    for name in recipe_names():
        assert load_recipe(name).scheme == name


@pytest.mark.parametrize(
    ("scheme", "linear", "embedding", "kv"),
    [
        ("8da4w", "i4g32", "i6g32", "f16"),
        ("8da8w", "i8", "i8", "f16"),
        ("fp16", "f16", "f16", "f16"),
        ("bf16", "bf16", "bf16", "f16"),
        ("fp32", "f32", "f32", "f32"),
    ],
)
def test_formats_of_the_schemes(scheme: str, linear: str, embedding: str, kv: str) -> None:
    recipe = Recipe(scheme=scheme)
    assert recipe.format_for("x", "linear").name == linear
    assert (
        recipe.format_for("x", "embedding").name == recipe.format_for("x", "head").name == embedding
    )
    assert recipe.kv_format() == kv


def test_settings_win_over_the_file_and_fields_over_settings() -> None:
    recipe = load_recipe(
        "8da4w",
        ["group_size=64", "context=512", "gate.max_kl=0.5", "overrides.*layers.0.*=f16"],
        context=256,
        model="somewhere",
    )
    assert (recipe.model, recipe.group_size, recipe.context) == ("somewhere", 64, 256)
    assert recipe.gate == Gate(max_kl=0.5)
    assert recipe.format_for("model.layers.0.mlp.up_proj.weight", "linear").name == "f16"
    assert recipe.format_for("model.layers.1.mlp.up_proj.weight", "linear").name == "i4g64"


def test_the_first_matching_override_wins_over_the_kind() -> None:
    recipe = Recipe(linear="i8", overrides={"*.down_proj.*": "f32", "*.layers.*": "bf16"})
    assert recipe.format_for("model.layers.0.mlp.down_proj.weight", "linear").name == "f32"
    assert recipe.format_for("model.layers.0.mlp.up_proj.weight", "linear").name == "bf16"
    assert recipe.format_for("elsewhere", "linear").name == "i8"


def test_gate_off_and_null_fields() -> None:
    assert load_recipe("8da4w", ["gate=off"]).gate is None
    assert load_recipe("8da4w", ["context=null"]).context is None


def test_limits_in_exponent_notation() -> None:
    assert load_recipe("8da4w", ["gate.max_kl=1e-3"]).gate == Gate(max_kl=0.001)


def test_a_recipe_file_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("scheme: 8da8w\nhead: f16\ngate: {min_top1: 0.5}\n", encoding="utf-8")
    recipe = load_recipe(path)
    assert (recipe.scheme, recipe.head, recipe.gate) == ("8da8w", "f16", Gate(min_top1=0.5))


def test_to_json_is_plain() -> None:
    document = Recipe(model="m", overrides={"*": "i8"}).to_json()
    assert json.loads(json.dumps(document)) == document
    assert document["gate"]["max_kl"] == Gate().max_kl


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["colour=red"], r"unknown colour; valid keys: model, scheme, .*verify"),
        (["gate.max_klx=1"], r"unknown gate\.max_klx; valid keys: .*gate\.max_kl"),
        (["gate.max_kl=high"], "gate limits must be numbers: max_kl"),
        (["gate=7"], "gate is 7, expected limits"),
        (["scheme=int3"], "scheme is 'int3', expected one of 8da4w, 8da8w, fp16, bf16, fp32"),
        (["group_size=48"], "group_size is 48, expected one of 32, 64, 128, or nothing"),
        (["group_size=32.0"], "group_size is 32.0"),
        (["activations=row"], "activations is 'row', expected one of token, group, or nothing"),
        (
            ["scheme=fp16", "activations=group"],
            "activations is 'group', but scheme fp16 rounds none",
        ),
        (["head=i5"], "head is 'i5', expected one of f32, f16"),
        (["overrides.*=[i8]"], "overrides is .*expected name patterns"),
        (["scheme=[8da4w]", "group_size=32"], r"scheme is \['8da4w'\], expected one of"),
        ([f"context=0x{'f' * 5000}"], "context is a int, expected"),
        ([f"adapters=[{{path: x, weight: 1{'0' * 400}}}]"], "adapters is .*expected a list"),
        ([f"gate.max_kl=1{'0' * 400}"], "gate limits must be numbers: max_kl"),
        (["context=&a [*a, *a]"], "aliases"),
        (["overrides.*=i5"], "overrides is .*i5.*expected name patterns"),
        (["scale_rule=best"], "scale_rule is 'best', expected one of affine, signed, hqq"),
        (["context=0"], "context is 0, expected 1 to 16777216 tokens"),
        (["context=16777217"], "context is 16777217, expected 1 to 16777216 tokens"),
        (["context=true"], "context is True"),
        (["kv_dtype=f8"], "kv_dtype is 'f8', expected one of f32, f16"),
        (["chat_template=5"], "chat_template is 5, expected the path of a Jinja file"),
        (["verify=1"], "verify is 1, expected true or false"),
        (["model=5"], "model is 5, expected a path or a catalogue name"),
        (["verify"], "expected key=value"),
        (["context=[1"], "not YAML"),
    ],
)
def test_refused_settings(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("8da4w", settings)


def test_all_problems_are_listed_together() -> None:
    with pytest.raises(ConfigError, match=r"scale_rule is 'x'.*kv_dtype is 'y'"):
        Recipe(scale_rule="x", kv_dtype="y")


@pytest.mark.parametrize(
    ("recipe", "here", "taken", "trained"),
    [
        (Recipe(), "token", "group", "token"),
        (Recipe(scheme="8da8w"), "group", "group", "token"),
        (Recipe(scheme="fp16", head="i8"), "group", "group", "token"),
        (Recipe(activations="group"), "group", "group", "group"),
        (Recipe(scheme="8da8w", activations="token"), "token", "token", "token"),
    ],
)
def test_activations_in_groups_are_where_weights_lose_little(
    recipe: Recipe, here: str, taken: str, trained: str
) -> None:
    assert recipe.rounding(taken_over=False, trained="token") == here
    assert recipe.rounding(taken_over=True, trained=None) == taken
    assert recipe.rounding(taken_over=True, trained="token") == trained


def test_activations_are_rounded_for_any_matrix_of_integers() -> None:
    for recipe in (
        Recipe(activations="group"),
        Recipe(scheme="8da8w", activations="group"),
        Recipe(scheme="fp16", head="i8", activations="group"),
        Recipe(scheme="bf16", overrides={"*v_proj*": "i4g32"}, activations="group"),
    ):
        assert recipe.rounding(taken_over=False, trained=None) == "group"


def test_8da8w_has_no_groups() -> None:
    with pytest.raises(ConfigError, match="scheme 8da8w has no groups"):
        Recipe(scheme="8da8w", group_size=32)


@pytest.mark.parametrize(
    "content",
    [
        *("- a list", "{", "scheme: [", "\x00", "{x: " + "[" * 3000, "model: " + "x" * 2**15),
        *("context: !!timestamp x", "context: !!int 'x'", "context: " + "9" * 5000),
        "a: &a [x, x]\nb: &b [*a, *a]\nscheme: *b",
    ],
)
def test_damaged_files(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_recipe(path)


def test_unknown_recipes_are_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recipe 'nope'; recipes: 8da4w, 8da8w, bf16"):
        load_recipe("nope")
    with pytest.raises(ConfigError, match="no recipe"):
        load_recipe(tmp_path / "nope.yaml")
