"""EXAONE 4 against transformers, from a tiny checkpoint to a program, and the same in GGUF."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from parity import (
    check_at_once,
    check_bits,
    check_fp32_program,
    check_interleaved,
    check_quantized_program,
    check_token_by_token,
)
from stored_tensors import assert_same_parameters

from edge_llm.errors import ConfigError
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.llm.registry import read_config

FULL = {"sliding_window": None, "layer_types": ["full_attention"] * 4}
CASES: dict[str, dict[str, Any]] = {
    "window": {},
    "tied window": {"tie_word_embeddings": True, "rms_norm_eps": 1e-3},
    "full": FULL,
    "tied full": FULL | {"tie_word_embeddings": True, "num_key_value_heads": 4},
}
# The published config of each model in configs/models, for tests/llm/test_model_catalogue.py.
PUBLISHED: dict[str, dict[str, Any]] = {
    "exaone4-1.2b": {
        "architectures": ["Exaone4ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 361,
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "initializer_range": 0.02,
        "intermediate_size": 4096,
        "layer_types": ["full_attention"] * 30,
        "max_position_embeddings": 65536,
        "model_type": "exaone4",
        "num_attention_heads": 32,
        "num_hidden_layers": 30,
        "num_key_value_heads": 8,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 16.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 1000000,
        "sliding_window": None,
        "sliding_window_pattern": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": 102400,
    }
}


@pytest.fixture(params=CASES)
def folder(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("exaone4", **CASES[request.param])


@pytest.mark.parametrize("check", [check_at_once, check_token_by_token, check_interleaved])
def test_eager(check: Callable[[Path], None], folder: Path) -> None:
    check(folder)


def test_fp32_program(folder: Path, tmp_path: Path) -> None:
    check_fp32_program(folder, tmp_path / "x.edge")


@pytest.mark.parametrize("folder", ["window", "tied full"], indirect=True)
def test_quantized_program(folder: Path, tmp_path: Path) -> None:
    check_quantized_program(folder, "8da4w", tmp_path / "x.edge")


@pytest.mark.parametrize("scheme", ["fp32", "8da4w"])
def test_tokens_depend_on_those_before_alone(
    scheme: str, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    check_bits(tiny_checkpoint("exaone4"), scheme, tmp_path / "x.edge")


def test_gguf_is_the_same_model(folder: Path, make_gguf: Callable[..., Path]) -> None:
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder))
    for layer in range(4):
        assert made.config.attention(layer) == replace(
            source.config.attention(layer),  # type: ignore[type-var]
            rope=made.config.attention(layer).rope,  # type: ignore[union-attr]
        )
        rotates = [one.config.attention(layer).rope is not None for one in (made, source)]  # type: ignore[union-attr]
        assert rotates[0] == rotates[1]
    assert_same_parameters(made, source)


def config_of(**changes: Any) -> DecoderConfig:
    return read_config(PUBLISHED["exaone4-1.2b"] | changes, "config.json")[0]


def test_layers() -> None:
    letters = config_of(layer_types=None, sliding_window=4096, sliding_window_pattern="LLLG")
    number = config_of(layer_types=None, sliding_window=4096, sliding_window_pattern=4)
    assert letters == number
    shapes = [letters.attention(layer) for layer in range(4)]
    assert [shape and shape.window for shape in shapes] == [4096, 4096, 4096, 0]
    assert [shape is not None and shape.rope is None for shape in shapes] == [False] * 3 + [True]
    far = config_of(layer_types=None, sliding_window=70_000, sliding_window_pattern=4)
    assert [shape and shape.window for shape in map(far.attention, range(4))] == [0] * 4
    assert far.attention(3) == shapes[3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sliding_window_pattern": "LGLG"}, "sliding_window_pattern: got 'LGLG', expected one as"),
        ({"layer_types": ["sliding_attention"] * 30}, "layer_types: got"),
        ({"attention_bias": True}, "attention_bias: got True, expected False"),
    ],
)
def test_what_it_cannot_honour(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config_of(**change)
    assert message in str(error.value)
