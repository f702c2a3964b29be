"""Formats fitted to the shapes of a model."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge_llm.errors import ConfigError, ExportError
from edge_llm.export.backends.registry import get_backend
from edge_llm.export.recipes.formats import Assignment, assign_formats
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.llm.blueprints.shipped import blueprint_of
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.program.formats import WEIGHT_FORMATS, Activations, WeightFormat
from edge_llm.program.plan import Plan


def plan_of(config: DecoderConfig) -> Plan:
    blueprint = blueprint_of(config)
    assert blueprint is not None
    return blueprint.plan(config, 8)


def assign(config: DecoderConfig, recipe: Recipe) -> Assignment:
    return assign_formats(plan_of(config), recipe, get_backend("native"))


def names(assignment: Assignment) -> dict[str, str]:
    return {name: form.name for name, form in assignment.formats.items()}


def test_every_matrix_gets_a_format(toy_config: Callable[..., DecoderConfig]) -> None:
    assignment = assign(toy_config(), Recipe())
    assert names(assignment) == {
        "model.embed_tokens.weight": "i6g32",
        **{f"model.layers.0.self_attn.{name}_proj.weight": "i4g32" for name in "qko"},
        "model.layers.0.self_attn.v_proj.weight": "i8",
        **{f"model.layers.0.mlp.{name}_proj.weight": "i4g32" for name in ("gate", "up", "down")},
        "lm_head.weight": "i6g32",
    }
    assert assignment.notes == ()


def test_six_bits_whose_groups_do_not_divide_become_eight(
    toy_config: Callable[..., DecoderConfig],
) -> None:
    recipe = Recipe(linear="f16")
    assignment = assign(toy_config(hidden_size=80), recipe)
    got = {names(assignment)[f"{name}.weight"] for name in ("model.embed_tokens", "lm_head")}
    assert got == {"i8"}
    assert assignment.notes[-1] == (
        "lm_head.weight: i8 instead of i6g32, which does not divide 80 columns"
    )


def test_a_group_that_does_not_divide_falls_back_and_says_so(
    toy_config: Callable[..., DecoderConfig],
) -> None:
    assignment = assign(toy_config(), Recipe(group_size=128))
    assert names(assignment)["model.layers.0.self_attn.q_proj.weight"] == "i4g64"
    assert names(assignment)["model.layers.0.mlp.down_proj.weight"] == "i4g32"
    assert (
        "model.layers.0.mlp.down_proj.weight: i4g32 instead of i4g128, "
        "which does not divide 96 columns" in assignment.notes
    )
    assert len(assignment.notes) == 6


def test_no_group_divides(toy_config: Callable[..., DecoderConfig]) -> None:
    with pytest.raises(ExportError, match=r"mlp\.down_proj\.weight has 72 columns, which no group"):
        assign(toy_config(intermediate_size=72), Recipe())


def test_kinds_and_overrides(toy_config: Callable[..., DecoderConfig]) -> None:
    recipe = Recipe(head="f16", embedding="bf16", overrides={"*.k_proj.weight": "i8"})
    formats = names(assign(toy_config(), recipe))
    assert formats["lm_head.weight"] == "f16"
    assert formats["model.embed_tokens.weight"] == "bf16"
    assert formats["model.layers.0.self_attn.k_proj.weight"] == "i8"


VALUES = "model.layers.0.self_attn.v_proj.weight"


@pytest.mark.parametrize(
    ("recipe", "stored", "expected"),
    [
        (Recipe(), None, "i8"),
        (Recipe(group_size=64), None, "i8"),
        (Recipe(linear="i4g32"), None, "i4g32"),
        (Recipe(overrides={"*.v_proj.weight": "i4g64"}), None, "i4g64"),
        (Recipe(scheme="fp16"), None, "f16"),
        (Recipe(), "u4g32m", "u4g32m"),  # four bits already: nothing would be gained
        (Recipe(overrides={"*.v_proj.weight": "i8"}), "u4g32m", "i8"),
        (Recipe(linear="i8"), "u4g32m", "i8"),
        (Recipe(), "i8g32", "i8g32"),  # integers of any size are kept by a scheme of integers
        (Recipe(scheme="8da8w"), "i5g32", "i5g32"),
        (Recipe(linear="i8"), "i8g32", "i8g32"),  # eight bits are what was asked for
        (Recipe(linear="i4g32"), "i8g32", "i4g32"),
        (Recipe(scheme="fp16"), "e2m1g32", "f16"),
    ],
)
def test_v_proj_has_eight_bits_where_it_is_quantized_here(
    recipe: Recipe, stored: str | None, expected: str, toy_config: Callable[..., DecoderConfig]
) -> None:
    plan = plan_of(toy_config())
    held = {} if stored is None else {VALUES: WEIGHT_FORMATS[stored]}
    assert (
        assign_formats(plan, recipe, get_backend("native"), held).formats[VALUES].name == expected
    )


LAYER = "model.layers.0"
GRID, EIGHT = WEIGHT_FORMATS["u4g32m"], WEIGHT_FORMATS["i8"]


@pytest.mark.parametrize(
    ("recipe", "stored", "trained", "groups"),
    [
        (Recipe(), {}, None, set()),
        (Recipe(scheme="8da8w"), {}, None, {"qkv", "o", "gate, up", "down", "head"}),
        (Recipe(scheme="8da8w", activations="token"), {}, None, set()),
        (Recipe(scheme="fp16", head="i8"), {}, None, {"head"}),
        (Recipe(), {"mlp.down_proj": GRID}, None, {"down"}),
        (Recipe(), {"mlp.down_proj": EIGHT}, "token", set()),
        (Recipe(), {"mlp.down_proj": EIGHT, "mlp.up_proj": GRID}, None, {"down", "gate, up"}),
        # what is rounded to int8 beside others of the same input is rounded with them
        (Recipe(), {f"self_attn.{name}_proj": GRID for name in "qk"}, None, {"qkv"}),
        (Recipe(activations="token"), {"mlp.down_proj": GRID}, None, set()),
        (Recipe(requantize=True, activations="group"), {}, None, {"qkv", "o", "gate, up", "down"}),
    ],
)
def test_activations_are_in_groups_where_weights_lose_little(
    recipe: Recipe,
    stored: dict[str, WeightFormat],
    trained: Activations | None,
    groups: set[str],
    toy_config: Callable[..., DecoderConfig],
) -> None:
    held = {f"{LAYER}.{name}.weight": form for name, form in stored.items()}
    got = assign_formats(plan_of(toy_config()), recipe, get_backend("native"), held, trained)
    ways = got.activations
    assert set(ways) == {name for name, form in got.formats.items() if not form.is_float}
    together = {
        "qkv": [f"self_attn.{name}_proj" for name in "qkv"],
        "o": ["self_attn.o_proj"],
        "gate, up": ["mlp.gate_proj", "mlp.up_proj"],
        "down": ["mlp.down_proj"],
    }
    for title, names in together.items():
        expected = {"group"} if title in groups else {"token"}
        if got.formats[f"{LAYER}.{names[0]}.weight"].is_float:
            continue
        assert {ways[f"{LAYER}.{name}.weight"] for name in names} == expected, title
    if "head" in groups:
        assert ways["lm_head.weight"] == "group"


def test_an_override_must_match_something(toy_config: Callable[..., DecoderConfig]) -> None:
    with pytest.raises(ConfigError, match=r"overrides match no weight: \*\.w1\.\*") as caught:
        assign(toy_config(), Recipe(overrides={"*.w1.*": "i8", "*.v_proj.*": "i8"}))
    assert "model.embed_tokens.weight" in (caught.value.hint or "")


def test_unknown_backends() -> None:
    with pytest.raises(ConfigError, match="no export backend 'npu'; backends: native"):
        get_backend("npu")


def test_a_backend_that_does_not_take_a_format(toy_config: Callable[..., DecoderConfig]) -> None:
    class Integers:
        name = "integers"
        formats = frozenset({WEIGHT_FORMATS["i8"]})

    plan = plan_of(toy_config())
    with pytest.raises(ExportError, match=r"lm_head\.weight: backend integers does not take f16"):
        assign_formats(plan, Recipe(scheme="8da8w", head="f16"), Integers())  # type: ignore[arg-type]
