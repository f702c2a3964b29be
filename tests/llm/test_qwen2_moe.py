"""Qwen2 with experts against transformers, from a tiny checkpoint to a program, and the same model
in GGUF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import (
    check_at_once,
    check_fp32_program,
    check_interleaved,
    check_token_by_token,
)
from stored_tensors import tensor_of

from edge_llm.export.pipeline import make_program
from edge_llm.export.recipes.file import load_recipe
from edge_llm.llm.checkpoints.open import open_checkpoint

CASES: dict[str, dict[str, Any]] = {
    "mixed": {},
    "windows": {"use_sliding_window": True, "sliding_window": 19, "max_window_layers": 2},
    "plain": {"mlp_only_layers": [], "norm_topk_prob": True, "qkv_bias": False},
}


@pytest.fixture(params=CASES)
def folder(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("qwen2_moe", **CASES[request.param])


@pytest.mark.parametrize("check", [check_at_once, check_token_by_token, check_interleaved])
def test_eager(check: Callable[[Path], None], folder: Path) -> None:
    check(folder)


def test_fp32_program(folder: Path, tmp_path: Path) -> None:
    check_fp32_program(folder, tmp_path / "x.edge")


def test_quantized_program(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    recipe = load_recipe("8da4w", ["gate=off"], model=str(tiny_checkpoint("qwen2_moe")))
    made = make_program(recipe, output=tmp_path / "x.edge")
    assert made.verification["same_numbers"]["kl"] < 1e-3
    formats = {row["name"]: row["format"] for row in made.report["weights"]}
    assert formats["model.layers.0.mlp.shared_expert_gate.weight"] == "f32"
    assert formats["model.layers.0.mlp.shared_expert.up_proj.weight"] == "i4g32"


def test_gguf_is_the_same_model(
    tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    folder = tiny_checkpoint("qwen2_moe", mlp_only_layers=[])
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder))
    assert made.config == source.config
    assert made.shapes == source.shapes
    for name in source.shapes:
        assert torch.equal(tensor_of(made, name), tensor_of(source, name)), name
