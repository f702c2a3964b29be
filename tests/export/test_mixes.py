"""Recipes that mix formats: they export, agree with eager PyTorch, and run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edge_llm
from edge_llm.export.pipeline import export, make_program
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.export.verification.oracle import eager_model
from edge_llm.program.file import Program

Tiny = Callable[..., Path]
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass
class Mix:
    """Fields of a recipe, and what must come of them: ``formats`` of some parameters; ``once``:
    table and head are one tensor."""

    recipe: dict[str, Any]
    formats: dict[str, str]
    tied: bool = True
    once: bool = False


MIXES: dict[str, Mix] = {
    "tied int6": Mix({}, {TABLE: "i6g32"}, once=True),
    "tied int8": Mix({"embedding": "i8", "head": "i8"}, {TABLE: "i8"}, once=True),
    "tied int4": Mix({"embedding": "i4g64", "head": "i4g64"}, {TABLE: "i4g64"}, once=True),
    "tied fp16": Mix({"embedding": "f16", "head": "f16"}, {TABLE: "f16"}, once=True),
    "tied, head int4": Mix(
        {"head": "i4g32", "scale_rule": "hqq"}, {TABLE: "i6g32", HEAD: "i4g32"}, once=False
    ),
    "tied, table fp16": Mix({"embedding": "f16"}, {TABLE: "f16", HEAD: "i6g32"}),
    "untied, head int4 affine": Mix(
        {"head": "i4g64", "scale_rule": "affine"}, {TABLE: "i6g32", HEAD: "i4g64"}, tied=False
    ),
    "untied, table int4, head fp16": Mix(
        {"embedding": "i4g32", "head": "f16", "scale_rule": "hqq"},
        {TABLE: "i4g32", HEAD: "f16"},
        tied=False,
    ),
    "layers by pattern": Mix(
        {
            "overrides": {
                "*layers.0.*": "i8",
                "*.v_proj.*": "f16",  # in layer 1: the first match wins
                "*down_proj*": "bf16",
                "lm_head*": "f32",
            }
        },
        {
            "model.layers.0.self_attn.v_proj.weight": "i8",
            "model.layers.1.self_attn.v_proj.weight": "f16",
            "model.layers.1.self_attn.q_proj.weight": "i4g32",
            "model.layers.1.mlp.down_proj.weight": "bf16",
            HEAD: "f32",
        },
        tied=False,
    ),
    "float scheme with int4 pieces": Mix(
        {"scheme": "bf16", "overrides": {"*mlp*": "i4g32"}, "scale_rule": "hqq"},
        {
            "model.layers.0.mlp.up_proj.weight": "i4g32",
            "model.layers.0.self_attn.o_proj.weight": "bf16",
            TABLE: "bf16",
        },
        once=True,
    ),
    "groups that do not divide": Mix(
        {"linear": "i4g128"},
        {
            "model.layers.0.mlp.down_proj.weight": "i4g32",  # 96 columns
            "model.layers.0.mlp.up_proj.weight": "i4g64",
        },
        once=True,
    ),
}


# Each one takes more than a second: the default run has those where something can go wrong.
ALWAYS = ("tied int4", "tied, head int4", "layers by pattern")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in ALWAYS else [pytest.mark.slow]) for name in MIXES],
)
def test_a_mix(name: str, tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    mix = MIXES[name]
    folder = tiny_checkpoint("llama", tie_word_embeddings=mix.tied)
    recipe = Recipe(model=str(folder), context=64, verify=False, kv_dtype="f32", **mix.recipe)
    path = export(recipe, output=tmp_path / "x.edge")
    with Program.open(path) as program:
        report = program.documents.report
        weights = {weight.name: weight for weight in program.plan.weights}
    # of a tied table stored twice both rows have the source's name
    formats = {row["tensor"]: row["format"] for row in report["weights"]}
    names = {row["name"]: row["tensor"] for row in report["weights"]}
    for parameter, expected in mix.formats.items():
        tensor = parameter if parameter in formats else names[parameter]
        assert formats[tensor] == expected, parameter
    assert (weights[HEAD].tensor == TABLE) == mix.once
    assert report["tied"] == ({HEAD: TABLE} if mix.once else {})

    tokens = np.random.default_rng(0).integers(0, 288, 24).tolist()
    with edge_llm.load(path) as llm:
        got = llm.logits(tokens)
    every = torch.arange(len(tokens))
    model = eager_model(recipe, slots=1, tokens=len(tokens))
    with torch.no_grad():
        expected = model(torch.tensor(tokens), every, torch.zeros_like(every), every).numpy()
    # The rounding of an activation may fall the other way; see test_program_parity.
    error = np.abs(got - expected).max(axis=1) / expected.std()
    assert float(np.median(error)) < 0.05
    assert float(error.max()) < 0.3


def test_mixes_pass_verify_and_its_gate(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    folder = tiny_checkpoint("llama", tie_word_embeddings=True)
    recipe = Recipe(
        model=str(folder),
        scheme="8da8w",
        head="f16",
        overrides={"*layers.1.mlp.*": "i4g32"},
        scale_rule="hqq",
    )
    verify = make_program(recipe, output=tmp_path / "x.edge").verification
    assert verify["same_numbers"]["top1_near"] > 0.9
