"""OLMoE against transformers, from a tiny checkpoint to a program, and the same model in GGUF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import (
    check_at_once,
    check_bits,
    check_fp32_program,
    check_interleaved,
    check_quantized_program,
    check_token_by_token,
)
from stored_tensors import tensor_of

from edge_llm.errors import ConfigError
from edge_llm.export.pipeline import make_program
from edge_llm.export.recipes.file import load_recipe
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.registry import read_config

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "divided": {"norm_topk_prob": True, "attention_bias": True, "tie_word_embeddings": True},
    "odd": {"num_experts": 7, "rms_norm_eps": 0.1, "num_key_value_heads": 4},
}

A1B: dict[str, Any] = {
    "architectures": ["OlmoeForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "clip_qkv": None,
    "eos_token_id": 50279,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 1024,
    "max_position_embeddings": 4096,
    "model_type": "olmoe",
    "norm_topk_prob": False,
    "num_attention_heads": 16,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 16,
    "num_key_value_heads": 16,
    "output_router_logits": False,
    "pad_token_id": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "router_aux_loss_coef": 0.01,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 50304,
}
# The published config of each model in configs/models, for tests/llm/test_model_catalogue.py.
PUBLISHED: dict[str, dict[str, Any]] = {"olmoe-1b-7b": A1B}


@pytest.fixture(params=CASES)
def folder(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("olmoe", **CASES[request.param])


@pytest.mark.parametrize("check", [check_at_once, check_token_by_token, check_interleaved])
def test_eager(check: Callable[[Path], None], folder: Path) -> None:
    check(folder)


def test_fp32_program(folder: Path, tmp_path: Path) -> None:
    check_fp32_program(folder, tmp_path / "x.edge")


@pytest.mark.parametrize("folder", ["divided", "odd"], indirect=True)
def test_quantized_program(folder: Path, tmp_path: Path) -> None:
    check_quantized_program(folder, "8da4w", tmp_path / "x.edge")


def test_tokens_depend_on_those_before_alone(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    check_bits(tiny_checkpoint("olmoe"), "8da4w", tmp_path / "x.edge")


@pytest.mark.parametrize("quant", ["F32", "Q4_K"])
def test_gguf_is_the_same_model(
    quant: str, tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tiny_checkpoint("olmoe", hidden_size=256, intermediate_size=256)
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder, quant))
    assert made.config == source.config
    assert made.shapes == source.shapes
    if quant == "F32":
        for name in source.shapes:
            assert torch.equal(tensor_of(made, name), tensor_of(source, name)), name
        return
    recipe = load_recipe("8da4w", model=str(made.sources[0]))
    outcome = make_program(recipe, output=tmp_path / "x.edge")
    rows = {row["name"]: row for row in outcome.report["weights"]}
    row = rows["model.layers.1.mlp.experts.up_proj"]
    assert (row["outcome"], row["source"], row["shape"]) == ("unchanged", quant, [12, 256, 256])
    assert outcome.verification["same_numbers"]["kl"] < 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip_qkv": 8.0}, "clip_qkv: got 8.0, expected None"),
        ({"num_experts_per_tok": 65}, "num_experts_per_tok: got 65, expected an integer from 1"),
        ({"sliding_window": 512, "layer_types": ["sliding_attention"] * 16}, "layer_types"),
    ],
)
def test_what_it_cannot_honour(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_config(A1B | change, "config.json")
    assert message in str(error.value)
