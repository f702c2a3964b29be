"""A sketch costs what the exported program costs: every family, every scheme."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from edge_llm.errors import ExportError
from edge_llm.export.backends.registry import get_backend
from edge_llm.export.lowering.graph import plan_model
from edge_llm.export.meter import Meter
from edge_llm.export.origin.load import load
from edge_llm.export.recipes.file import load_recipe
from edge_llm.llm.registry import FAMILIES
from edge_llm.llm.sizes import shape_of
from edge_llm.program import cost
from edge_llm.program.formats import WEIGHT_FORMATS
from edge_llm.program.plan import Plan
from edge_llm.program.sketch import Shape, sketch

CASES: list[tuple[str, str, list[str], Mapping[str, Any]]] = [
    *((family, "8da4w", [], {}) for family in FAMILIES),
    ("llama", "8da8w", [], {"tie_word_embeddings": True, "head_dim": 32}),
    ("llama", "fp16", ["kv_dtype=i8"], {"attention_bias": True, "mlp_bias": True}),
    ("llama", "8da4w", ["group_size=64", "embedding=f16"], {"tie_word_embeddings": True}),
    ("llama", "8da4w", ["overrides.*layers.1.mlp.down_proj*=i8"], {"tie_word_embeddings": True}),
]


def exported(folder: Path, scheme: str, settings: list[str]) -> tuple[Plan, Plan]:
    """The plan that an export lowers to, and the sketch of the same."""
    recipe = load_recipe(scheme, [*settings, "context=200"], model=str(folder))
    loaded = load(recipe)
    traced = plan_model(
        loaded, recipe, get_backend("native"), Meter(), lambda stage, done, total: None
    )
    made = sketch(
        shape_of(loaded.checkpoint.config),
        recipe.format_for,
        context=200,
    )
    return traced.lowered.plan, made


@pytest.mark.parametrize(("family", "scheme", "settings", "changes"), CASES)
def test_costs_are_those_of_the_program(
    family: str,
    scheme: str,
    settings: list[str],
    changes: Mapping[str, Any],
    tiny_checkpoint: Callable[..., Path],
) -> None:
    plan, made = exported(tiny_checkpoint(family, **changes), scheme, settings)
    assert cost.stored_bytes(made) == cost.stored_bytes(plan)
    for depth in (0, 50, 150):
        assert cost.decode_bytes(made, depth, "f16") == cost.decode_bytes(plan, depth, "f16")
        for tokens in (1, 40):
            operations = cost.prefill_operations(plan, tokens, depth)
            assert cost.prefill_operations(made, tokens, depth) == operations


def test_a_width_that_no_group_divides() -> None:
    shape = Shape(
        vocab=100,
        dim=40,
        layers=1,
        heads=2,
        kv_heads=1,
        head_dim=20,
        ffn=64,
        rotary_dim=20,
        tied=True,
        parameters=10**6,
    )
    with pytest.raises(ExportError, match=r"q_proj\.weight has 40 columns"):
        sketch(
            shape,
            lambda name, kind: WEIGHT_FORMATS["i4g32" if kind == "linear" else "i8"],
            context=10,
        )
