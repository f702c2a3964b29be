"""Granite 3, and Granite 4 without experts and state spaces, against transformers, from a tiny
checkpoint to a program, and the same models in GGUF."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import (
    assert_parity,
    check_at_once,
    check_bits,
    check_fp32_program,
    check_interleaved,
    check_quantized_program,
    check_token_by_token,
    eager,
    prompt,
)
from stored_tensors import assert_same_model

from edge_llm.errors import ConfigError
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.registry import read_config

ONES = dict.fromkeys(
    ("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"), 1.0
)
# Granite 4 without experts and state spaces.
PLAIN: dict[str, Any] = {
    "num_hidden_layers": 2,
    "layer_types": ["full_attention"] * 2,
    "num_local_experts": 0,
    "num_experts_per_tok": 0,
    "position_embedding_type": "rope",
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "granite": ("granite", {"tie_word_embeddings": True}),
    "granite-untied": ("granite", {"rms_norm_eps": 1e-2, "head_dim": 24}),
    "granite-biases": ("granite", {"attention_bias": True, "mlp_bias": True}),
    "granite-ones": ("granite", ONES),
    "granite4": ("granitemoehybrid", PLAIN | {"tie_word_embeddings": True}),
    "granite4-untied": ("granitemoehybrid", PLAIN | {"attention_bias": True}),
}
GRANITE: dict[str, Any] = {
    "architectures": ["GraniteForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attention_multiplier": 0.015625,
    "bos_token_id": 0,
    "embedding_multiplier": 12.0,
    "eos_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "logits_scaling": 8.0,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "granite",
    "num_attention_heads": 32,
    "num_hidden_layers": 40,
    "num_key_value_heads": 8,
    "pad_token_id": 0,
    "residual_multiplier": 0.22,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 49159,
}
HYBRID: dict[str, Any] = {
    **{key: value for key, value in GRANITE.items() if key != "mlp_bias"},
    "architectures": ["GraniteMoeHybridForCausalLM"],
    "attention_multiplier": 0.0078125,
    "bos_token_id": 100257,
    "embedding_multiplier": 12,
    "eos_token_id": 100257,
    "init_method": "mup",
    "intermediate_size": 4096,
    "layer_types": ["attention"] * 40,
    "logits_scaling": 8,
    "mamba_chunk_size": 256,
    "mamba_conv_bias": True,
    "mamba_d_conv": 4,
    "mamba_d_head": 32,
    "mamba_d_state": 256,
    "mamba_expand": 2,
    "mamba_n_groups": 1,
    "mamba_n_heads": 128,
    "mamba_proj_bias": False,
    "model_type": "granitemoehybrid",
    "normalization_function": "rmsnorm",
    "num_attention_heads": 16,
    "num_experts_per_tok": 0,
    "num_key_value_heads": 4,
    "num_local_experts": 0,
    "output_router_logits": False,
    "pad_token_id": 100256,
    "position_embedding_type": "rope",
    "rope_theta": 10000000,
    "router_aux_loss_coef": 0.01,
    "shared_intermediate_size": 4096,
    "vocab_size": 100352,
}
# The published config of each model in configs/models, for tests/llm/test_model_catalogue.py.
PUBLISHED: dict[str, dict[str, Any]] = {
    "granite3.3-2b": GRANITE,
    "granite3.3-8b": GRANITE
    | {
        "attention_multiplier": 0.0078125,
        "hidden_size": 4096,
        "intermediate_size": 12800,
        "logits_scaling": 16.0,
    },
    "granite4-350m": HYBRID
    | {
        "attention_multiplier": 0.015625,
        "hidden_size": 1024,
        "intermediate_size": 2048,
        "layer_types": ["attention"] * 28,
        "logits_scaling": 4,
        "mamba_d_head": 16,
        "max_position_embeddings": 32768,
        "num_hidden_layers": 28,
        "residual_multiplier": 0.263,
        "shared_intermediate_size": 2048,
    },
    "granite4-1b": HYBRID,
    "granite4-micro": HYBRID
    | {
        "attention_multiplier": 0.015625,
        "hidden_size": 2560,
        "intermediate_size": 8192,
        "logits_scaling": 10,
        "mamba_d_head": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "shared_intermediate_size": 8192,
    },
}


@pytest.fixture(params=CASES)
def folder(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    family, changes = CASES[request.param]
    return tiny_checkpoint(family, **changes)


@pytest.mark.parametrize("check", [check_at_once, check_token_by_token, check_interleaved])
def test_eager(check: Callable[[Path], None], folder: Path) -> None:
    check(folder)


def test_fp32_program(folder: Path, tmp_path: Path) -> None:
    check_fp32_program(folder, tmp_path / "x.edge")


@pytest.mark.parametrize("folder", ["granite", "granite4"], indirect=True)
def test_quantized_program(folder: Path, tmp_path: Path) -> None:
    check_quantized_program(folder, "8da4w", tmp_path / "x.edge")


@pytest.mark.parametrize("folder", ["granite", "granite4"], indirect=True)
@pytest.mark.parametrize("scheme", ["fp32", "8da4w"])
def test_tokens_depend_on_those_before_alone(folder: Path, scheme: str, tmp_path: Path) -> None:
    check_bits(folder, scheme, tmp_path / "x.edge")


@pytest.mark.parametrize("folder", ["granite", "granite-ones"], indirect=True)
def test_gguf_is_the_same_model(folder: Path, make_gguf: Callable[..., Path]) -> None:
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder))
    assert_same_model(made, source)


def test_granite4_is_granite_in_gguf(
    tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    folder = tiny_checkpoint("granitemoehybrid", **PLAIN, tie_word_embeddings=True)
    file = make_gguf(folder)
    assert open_checkpoint(file).config.model_type == "granite"
    tokens = prompt(150, 3)
    every = torch.arange(len(tokens))
    whole, parted = (
        eager(source, 160)(tokens, every, torch.zeros_like(tokens), every)
        for source in (folder, file)
    )
    assert_parity(parted, whole)


def test_a_gguf_without_a_scale_of_scores_has_the_usual(
    tiny_checkpoint: Callable[..., Path],
    make_gguf: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import gguf

    monkeypatch.setattr(gguf.GGUFWriter, "add_attention_scale", lambda self, value: None)
    checkpoint = open_checkpoint(make_gguf(tiny_checkpoint("granite")))
    assert checkpoint.config.attention(0).scale == 0.25


def test_a_gguf_without_rotation_is_refused(
    tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    file = make_gguf(
        tiny_checkpoint("granite"), edit=lambda writer: writer.add_rope_scaling_finetuned(False)
    )
    with pytest.raises(ConfigError, match="rope_finetuned: got False, expected True"):
        open_checkpoint(file)


@pytest.mark.parametrize("version", [4, 5])
def test_both_forms_of_names_of_layers(
    version: int, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_checkpoint("granitemoehybrid", **PLAIN), tmp_path / "copy")
    file = tmp_path / "copy" / "config.json"
    values = json.loads(file.read_text())
    values["layer_types"] = [{4: "attention", 5: "full_attention"}[version]] * 2
    if version == 4:
        rope = values.pop("rope_parameters")
        values |= {"rope_theta": rope["rope_theta"], "rope_scaling": None}
    file.write_text(json.dumps(values))
    checkpoint = open_checkpoint(tmp_path / "copy")
    assert checkpoint.config == open_checkpoint(tiny_checkpoint("granitemoehybrid", **PLAIN)).config
    assert checkpoint.unread_config_keys == ()


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ({"logits_scaling": 0}, ["logits_scaling: got 0, expected a number"]),
    ],
)
def test_what_it_cannot_honour(change: dict[str, Any], messages: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        read_config(HYBRID | change, "config.json")
    for message in messages:
        assert message in str(error.value)
