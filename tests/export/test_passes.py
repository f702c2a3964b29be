"""Merge and tie, each on its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge_llm.export.lowering.lowered import Lowered
from edge_llm.export.passes.merge import joined_name, merge
from edge_llm.export.passes.tie import tie
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.program.check import check_plan

Config = Callable[..., DecoderConfig]
Lower = Callable[..., Lowered]

ATTENTION = "model.layers.0.self_attn"
QKV = f"{ATTENTION}.q_proj+k_proj+v_proj"
TIED = {"lm_head.weight": "model.embed_tokens.weight"}


def tensors_of(lowered: Lowered) -> set[str]:
    return {weight.tensor for weight in lowered.plan.weights}


# --- merge ---------------------------------------------------------------------------------------


def test_merge_joins_linears_of_one_input(toy_config: Config, lowered_toy: Lower) -> None:
    lowered = merge(lowered_toy(toy_config("qwen2"), Recipe(linear="i4g32")), row_multiple=16)
    check_plan(lowered.plan)
    weights = {weight.name: weight for weight in lowered.plan.weights}
    assert weights[f"{QKV}.weight"].shape == (128, 64)
    assert weights[f"{QKV}.bias"].shape == (128,)
    assert weights["model.layers.0.mlp.gate_proj+up_proj.weight"].shape == (192, 64)
    assert lowered.parts[f"{QKV}.weight"] == tuple(f"{ATTENTION}.{x}_proj.weight" for x in "qkv")
    assert lowered.parts[f"{QKV}.bias"] == tuple(f"{ATTENTION}.{x}_proj.bias" for x in "qkv")
    assert tensors_of(lowered) == set(lowered.parts)

    splits = [i for i in lowered.plan.instructions if i.op == "split"]
    widths = [[lowered.plan.values[number].width for number in i.outputs] for i in splits]
    assert widths == [[64, 32, 32], [96, 96]]
    attention = next(i for i in lowered.plan.instructions if i.op == "attention")
    assert attention.inputs[2] == splits[0].outputs[2]  # v is used as it comes


@pytest.mark.parametrize(
    ("overrides", "merged"),
    [
        ({}, {f"{ATTENTION}.q_proj+k_proj.weight"}),  # v_proj is int8
        ({"*.k_proj.*": "f16"}, set()),
    ],
)
def test_merge_keeps_formats_apart(
    overrides: dict[str, str], merged: set[str], toy_config: Config, lowered_toy: Lower
) -> None:
    lowered = merge(lowered_toy(toy_config(), Recipe(overrides=overrides)), row_multiple=16)
    check_plan(lowered.plan)
    assert {name for name in lowered.parts if "+" in name and ATTENTION in name} == merged


def test_matrices_of_integers_say_how_activations_are_rounded(
    toy_config: Config, lowered_toy: Lower
) -> None:
    recipe = Recipe(activations="group", overrides={"*.k_proj.*": "f16"})
    lowered = tie(merge(lowered_toy(toy_config(), recipe), row_multiple=16), TIED)
    check_plan(lowered.plan)
    ways = {weight.name: weight.activations for weight in lowered.plan.weights}
    assert ways[f"{ATTENTION}.q_proj.weight"] == ways["lm_head.weight"] == "group"
    assert ways[f"{ATTENTION}.k_proj.weight"] == ways["model.norm.weight"] == "token"


def test_merge_keeps_apart_what_would_split_a_panel(toy_config: Config, lowered_toy: Lower) -> None:
    # k has 2 * 12 = 24 rows: it may end a merged weight, v starts anew
    config = toy_config(head_dim=12, num_attention_heads=8, num_key_value_heads=2)
    lowered = merge(lowered_toy(config, Recipe(scheme="fp32")), row_multiple=16)
    check_plan(lowered.plan)
    assert lowered.parts[f"{ATTENTION}.q_proj+k_proj.weight"]
    assert lowered.parts[f"{ATTENTION}.v_proj.weight"] == (f"{ATTENTION}.v_proj.weight",)


def test_merge_leaves_a_plan_without_common_inputs_as_it_was(
    toy_config: Config, lowered_toy: Lower
) -> None:
    once = merge(lowered_toy(toy_config(num_hidden_layers=2), Recipe()), row_multiple=16)
    assert merge(once, row_multiple=16) == once


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.q.weight", "a.k.weight"], "a.q+k.weight"),
        (["a.0.w", "a.1.w", "a.2.w"], "a.0+1+2.w"),
        (["a.w", "b.c.w"], "a.w+b.c.w"),
    ],
)
def test_joined_name(names: list[str], expected: str) -> None:
    assert joined_name(names) == expected


# --- tie -----------------------------------------------------------------------------------------


def test_tie_stores_one_table(toy_config: Config, lowered_toy: Lower) -> None:
    lowered = tie(lowered_toy(toy_config(), Recipe()), TIED)
    check_plan(lowered.plan)
    head = next(weight for weight in lowered.plan.weights if weight.name == "lm_head.weight")
    assert head.tensor == "model.embed_tokens.weight"
    assert "lm_head.weight" not in lowered.parts
    assert tensors_of(lowered) == set(lowered.parts)


def test_tie_stores_both_where_the_recipe_made_them_differ(
    toy_config: Config, lowered_toy: Lower
) -> None:
    lowered = tie(lowered_toy(toy_config(), Recipe(head="f16")), TIED)
    check_plan(lowered.plan)
    head = next(weight for weight in lowered.plan.weights if weight.name == "lm_head.weight")
    assert head.tensor == "lm_head.weight"
    assert lowered.parts["lm_head.weight"] == ("model.embed_tokens.weight",)


def test_nothing_is_tied_without_a_declaration(toy_config: Config, lowered_toy: Lower) -> None:
    lowered = lowered_toy(toy_config(tie_word_embeddings=False), Recipe())
    assert tie(lowered, {}) == lowered
