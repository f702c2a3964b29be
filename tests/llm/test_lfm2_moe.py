"""LFM2 with experts against transformers, from a tiny checkpoint to a program, and the same model
in GGUF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from parity import (
    check_at_once,
    check_bits,
    check_forced_routes,
    check_fp32_program,
    check_interleaved,
    check_token_by_token,
)
from stored_tensors import assert_same_model

from edge_llm.errors import ConfigError
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.registry import read_config

USUAL = {"head_dim": 16, "tie_word_embeddings": True, "routed_scaling_factor": 1.0}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "unbiased": {"use_expert_bias": False, "norm_topk_prob": False, "conv_bias": True},
    "sparse": {"num_dense_layers": 0, "tie_word_embeddings": True, "num_experts": 7},
    "usual": USUAL,
}
# The parts of LFM2-8B-A1B's config that decide shapes and computation.
LFM2_MOE: dict[str, Any] = {
    "architectures": ["Lfm2MoeForCausalLM"],
    "bos_token_id": 1,
    "conv_L_cache": 3,
    "conv_bias": False,
    "eos_token_id": 7,
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 7168,
    "layer_types": ["full_attention" if i in {2, 6, 10, 14, 18, 21} else "conv" for i in range(24)],
    "max_position_embeddings": 128000,
    "model_type": "lfm2_moe",
    "moe_intermediate_size": 1792,
    "norm_eps": 1e-05,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_dense_layers": 2,
    "num_experts": 32,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "pad_token_id": 0,
    "rope_theta": 1000000.0,
    "routed_scaling_factor": 1.0,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_expert_bias": True,
    "vocab_size": 65536,
}
PUBLISHED: dict[str, dict[str, Any]] = {"lfm2-8b-a1b": LFM2_MOE}


@pytest.fixture(params=CASES)
def folder(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("lfm2_moe", **CASES[request.param])


@pytest.mark.parametrize("check", [check_at_once, check_token_by_token, check_interleaved])
def test_eager(check: Callable[[Path], None], folder: Path) -> None:
    check(folder)


def test_fp32_program(folder: Path, tmp_path: Path) -> None:
    check_fp32_program(folder, tmp_path / "x.edge")


def test_quantized_program(folder: Path, tmp_path: Path) -> None:
    check_forced_routes(folder, "8da4w", tmp_path / "x.edge")


def test_tokens_depend_on_those_before_alone(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    check_bits(tiny_checkpoint("lfm2_moe"), "8da4w", tmp_path / "x.edge")


@pytest.mark.parametrize("folder", ["usual"], indirect=True)
def test_gguf_is_the_same_model(folder: Path, make_gguf: Callable[..., Path]) -> None:
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder))
    assert_same_model(made, source)


def test_other_routers_of_gguf_are_refused(
    tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    def edit(writer: Any) -> None:
        writer.kv_data[0]["lfm2moe.expert_gating_func"].value = 1

    file = make_gguf(tiny_checkpoint("lfm2_moe", **USUAL), edit=edit)
    with pytest.raises(ConfigError, match="expert_gating_func: got 1, expected 2"):
        open_checkpoint(file)


def test_the_published_config_is_read_whole() -> None:
    config, unread = read_config(LFM2_MOE, "config.json")
    assert unread == ()
    assert [config.attention(layer) is None for layer in range(4)] == [True, True, False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_experts_per_tok": 33}, "num_experts_per_tok: got 33"),
        ({"num_dense_layers": -1}, "num_dense_layers: got -1"),
        ({"layer_types": None, "full_attn_idxs": 3}, "full_attn_idxs: got 3"),
    ],
)
def test_what_it_cannot_honour(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_config(LFM2_MOE | change, "config.json")
    assert message in str(error.value)
