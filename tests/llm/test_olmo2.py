"""OLMo 2 against transformers, from a tiny checkpoint to a program, and the same model in GGUF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures_checkpoints import YARN_ROPE
from parity import (
    check_at_once,
    check_fp32_program,
    check_interleaved,
    check_quantized_program,
    check_token_by_token,
)
from stored_tensors import assert_same_model

from edge_llm.errors import ConfigError
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.registry import read_config

# What changes the computation, beside the sizes of every tiny checkpoint.
CASES: dict[str, dict[str, Any]] = {
    "untied": {},
    "tied": {"tie_word_embeddings": True},
    "no-groups": {"num_key_value_heads": 4},
    "biases": {"attention_bias": True},
    "yarn": {"rope_parameters": YARN_ROPE, "rms_norm_eps": 1e-3},
}
# The published config of each model in configs/models, for tests/llm/test_model_catalogue.py.
PUBLISHED: dict[str, dict[str, Any]] = {
    "olmo2-1b": {
        "architectures": ["Olmo2ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "eos_token_id": 100257,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "initializer_range": 0.02,
        "intermediate_size": 8192,
        "max_position_embeddings": 4096,
        "model_type": "olmo2",
        "num_attention_heads": 16,
        "num_hidden_layers": 16,
        "num_key_value_heads": 16,
        "pad_token_id": 100277,
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "rope_theta": 500000,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.50.0",
        "use_cache": True,
        "vocab_size": 100352,
    }
}


@pytest.fixture(params=CASES)
def folder(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("olmo2", **CASES[request.param])


@pytest.mark.parametrize("check", [check_at_once, check_token_by_token, check_interleaved])
def test_eager(check: Callable[[Path], None], folder: Path) -> None:
    check(folder)


def test_fp32_program(folder: Path, tmp_path: Path) -> None:
    check_fp32_program(folder, tmp_path / "x.edge")


@pytest.mark.parametrize("folder", ["untied", "tied"], indirect=True)
def test_quantized_program(folder: Path, tmp_path: Path) -> None:
    check_quantized_program(folder, "8da4w", tmp_path / "x.edge")


# A GGUF file of this architecture cannot hold biases.
@pytest.mark.parametrize("folder", sorted(CASES.keys() - {"biases"}), indirect=True)
def test_gguf_is_the_same_model(folder: Path, make_gguf: Callable[..., Path]) -> None:
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder))
    assert_same_model(made, source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mlp_bias": True}, "mlp_bias: got True, expected False"),
        ({"layer_types": ["sliding_attention"] * 16}, "layer_types: got"),
        ({"hidden_act": "gelu"}, "hidden_act: got 'gelu', expected 'silu'"),
    ],
)
def test_what_it_cannot_honour(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_config(PUBLISHED["olmo2-1b"] | change, "config.json")
    assert message in str(error.value)
