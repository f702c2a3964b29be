"""Phi-3.5-MoE against transformers, from a tiny checkpoint to a program, and the same model in
GGUF."""

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
from edge_llm.llm.rope import LongRopeScaling

PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
CASES: dict[str, dict[str, Any]] = {
    "long": {},
    "plain": {"rope_parameters": PLAIN_ROPE, "sliding_window": None, "router_jitter_noise": 0.01},
    "without-biases": {"attention_bias": False, "lm_head_bias": False, "rms_norm_eps": 0.1},
    "tied": {"tie_word_embeddings": True, "num_local_experts": 7, "num_key_value_heads": 4},
}

# Phi-3.5-MoE's, but for the factors of its rope.
SCALING: dict[str, Any] = {
    "type": "longrope",
    "short_factor": [1.0] * 64,
    "long_factor": [2.0] * 64,
    "short_mscale": 1.243163121016122,
    "long_mscale": 1.243163121016122,
    "original_max_position_embeddings": 4096,
}
MOE: dict[str, Any] = {
    "architectures": ["PhiMoEForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_phimoe.PhiMoEConfig"},
    "bos_token_id": 1,
    "eos_token_id": 32000,
    "hidden_act": "silu",
    "hidden_dropout": 0.0,
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "input_jitter_noise": 0.01,
    "intermediate_size": 6400,
    "lm_head_bias": True,
    "max_position_embeddings": 131072,
    "model_type": "phimoe",
    "num_attention_heads": 32,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 16,
    "original_max_position_embeddings": 4096,
    "output_router_logits": False,
    "rms_norm_eps": 1e-05,
    "rope_scaling": SCALING,
    "rope_theta": 10000.0,
    "router_aux_loss_coef": 0.0,
    "router_jitter_noise": 0.01,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 32064,
}
PUBLISHED: dict[str, dict[str, Any]] = {"phi-3.5-moe": MOE}


@pytest.fixture(params=CASES)
def folder(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("phimoe", **CASES[request.param])


@pytest.mark.parametrize("check", [check_at_once, check_token_by_token, check_interleaved])
def test_eager(check: Callable[[Path], None], folder: Path) -> None:
    check(folder)


def test_fp32_program(folder: Path, tmp_path: Path) -> None:
    check_fp32_program(folder, tmp_path / "x.edge")


def test_the_short_regime(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    check_at_once(tiny_checkpoint("phimoe"), context=64)


def test_quantized_program(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    made = check_forced_routes(tiny_checkpoint("phimoe"), "8da4w", tmp_path / "x.edge")
    formats = {row["name"]: row["format"] for row in made.report["weights"]}
    assert formats["model.layers.0.block_sparse_moe.gate.weight"] == "f32"
    assert formats["model.layers.0.block_sparse_moe.experts.w1"] == "i4g32"


def test_tokens_depend_on_those_before_alone(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    check_bits(tiny_checkpoint("phimoe"), "8da4w", tmp_path / "x.edge")


def test_gguf_is_the_same_model(
    tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    folder = tiny_checkpoint("phimoe", router_jitter_noise=0.01)
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder))
    assert_same_model(made, source)


def test_what_the_published_config_says() -> None:
    config, unread = read_config(MOE, "config.json")
    assert unread == ()
    shape = config.attention(0)
    assert shape is not None
    assert shape.rope is not None
    assert shape.window == 0
    assert isinstance(shape.rope.scaling, LongRopeScaling)
    assert shape.rope.scaling.attention_factor == 1.243163121016122


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_experts_per_tok": 4}, "num_experts_per_tok: got 4, expected 2"),
        ({"rope_scaling": SCALING | {"short_mscale": 1.5}}, "short_mscale: got 1.5, expected"),
        ({"num_local_experts": 1}, "num_local_experts: got 1, expected an integer from 2"),
    ],
)
def test_what_it_cannot_honour(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_config(MOE | change, "config.json")
    assert message in str(error.value)
