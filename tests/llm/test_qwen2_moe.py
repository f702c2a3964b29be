"""Qwen2 with experts against transformers, from a tiny checkpoint to a program, and the same model
in GGUF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from parity import (
    check_at_once,
    check_forced_routes,
    check_fp32_program,
    check_interleaved,
    check_token_by_token,
)
from stored_tensors import assert_same_model

from edge_llm.llm.checkpoints.open import open_checkpoint

CASES: dict[str, dict[str, Any]] = {
    "mixed": {},
    "windows": {"use_sliding_window": True, "sliding_window": 19, "max_window_layers": 2},
    "plain": {"mlp_only_layers": [], "norm_topk_prob": True, "qkv_bias": False},
}

# The published config of each model in configs/models, for tests/llm/test_model_catalogue.py.
PUBLISHED: dict[str, dict[str, Any]] = {
    "qwen1.5-moe-a2.7b": {
        "architectures": ["Qwen2MoeForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "decoder_sparse_step": 1,
        "eos_token_id": 151645,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "initializer_range": 0.02,
        "intermediate_size": 5632,
        "max_position_embeddings": 32768,
        "max_window_layers": 21,
        "model_type": "qwen2_moe",
        "moe_intermediate_size": 1408,
        "norm_topk_prob": False,
        "num_attention_heads": 16,
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "num_hidden_layers": 24,
        "num_key_value_heads": 16,
        "output_router_logits": False,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.001,
        "shared_expert_intermediate_size": 5632,
        "sliding_window": 32768,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 151936,
    }
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
    made = check_forced_routes(tiny_checkpoint("qwen2_moe"), "8da4w", tmp_path / "x.edge")
    formats = {row["name"]: row["format"] for row in made.report["weights"]}
    assert formats["model.layers.0.mlp.shared_expert_gate.weight"] == "f32"
    assert formats["model.layers.0.mlp.shared_expert.up_proj.weight"] == "i4g32"


def test_gguf_is_the_same_model(
    tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    folder = tiny_checkpoint("qwen2_moe", mlp_only_layers=[])
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder))
    assert_same_model(made, source)
