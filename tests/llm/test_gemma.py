"""Gemma 2 and 3 against transformers, from a tiny checkpoint to a program, and the same models in
GGUF."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures_checkpoints import FAMILY_SIZES, SIZES
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
from stored_tensors import assert_same_model, tensor_of

from edge_llm.errors import ConfigError
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.llm.registry import read_config

# GGUF has neither another pattern of windows than the usual nor the scale of queries: what it can
# hold has the usual ones.
USUAL = {"query_pre_attn_scalar": 24, "num_hidden_layers": 7}
ROPES = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1_000_000.0, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2": ("gemma2", {}),
    "gemma2-untied": ("gemma2", {"tie_word_embeddings": False}),
    "gemma2-uncapped": (
        "gemma2",
        {"attn_logit_softcapping": None, "final_logit_softcapping": None, "rms_norm_eps": 1e-2},
    ),
    "gemma2-usual": ("gemma2", USUAL | {"tie_word_embeddings": True}),
    "gemma3": ("gemma3_text", {"tie_word_embeddings": True}),
    "gemma3-untied": ("gemma3_text", {"tie_word_embeddings": False, "attention_bias": True}),
    "gemma3-capped": ("gemma3_text", {"final_logit_softcapping": 1.5}),
    "gemma3-layers": (
        "gemma3_text",
        {
            "layer_types": [f"{kind}_attention" for kind in ("full", "sliding", "full", "full")],
            "sliding_window_pattern": None,
        },
    ),
    "gemma3-usual": (
        "gemma3_text",
        USUAL
        | {"sliding_window_pattern": 6, "rope_parameters": ROPES, "tie_word_embeddings": True},
    ),
}
GEMMA3: dict[str, Any] = {
    "_sliding_window_pattern": 6,
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 640,
    "initializer_range": 0.02,
    "intermediate_size": 2048,
    "layer_types": ([*["sliding_attention"] * 5, "full_attention"]) * 3,
    "max_position_embeddings": 32768,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 18,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": 512,
    "torch_dtype": "bfloat16",
    "use_bidirectional_attention": False,
    "use_cache": True,
    "vocab_size": 262144,
}
# The published config of each model in configs/models, for tests/llm/test_model_catalogue.py.
PUBLISHED: dict[str, dict[str, Any]] = {
    "gemma3-270m": GEMMA3,
    "gemma3-1b": {
        **{key: value for key, value in GEMMA3.items() if "pattern" not in key},
        "cache_implementation": "hybrid",
        "eos_token_id": [1, 106],
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "layer_types": None,
        "num_hidden_layers": 26,
        "sliding_window_pattern": 6,
    },
    "gemma3-4b": {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "boi_token_index": 255999,
        "eoi_token_index": 256000,
        "eos_token_id": [1, 106],
        "image_token_index": 262144,
        "initializer_range": 0.02,
        "mm_tokens_per_image": 256,
        "model_type": "gemma3",
        "text_config": {
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "model_type": "gemma3_text",
            "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
        "torch_dtype": "bfloat16",
        "vision_config": {"model_type": "siglip_vision_model"},
    },
    "gemma2-2b": {
        "architectures": ["Gemma2ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": 50.0,
        "bos_token_id": 2,
        "cache_implementation": "hybrid",
        "eos_token_id": 1,
        "final_logit_softcapping": 30.0,
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 2304,
        "initializer_range": 0.02,
        "intermediate_size": 9216,
        "max_position_embeddings": 8192,
        "model_type": "gemma2",
        "num_attention_heads": 8,
        "num_hidden_layers": 26,
        "num_key_value_heads": 4,
        "pad_token_id": 0,
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": 256000,
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


@pytest.mark.parametrize("folder", ["gemma2", "gemma3", "gemma3-untied"], indirect=True)
def test_quantized_program(folder: Path, tmp_path: Path) -> None:
    check_quantized_program(folder, "8da4w", tmp_path / "x.edge")


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text"])
def test_tokens_depend_on_those_before_alone(
    family: str, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    check_bits(tiny_checkpoint(family), "8da4w", tmp_path / "x.edge")


@pytest.mark.parametrize("folder", ["gemma2-usual", "gemma3-usual"], indirect=True)
def test_gguf_is_the_same_model(folder: Path, make_gguf: Callable[..., Path]) -> None:
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder))
    assert_same_model(made, source)


def config_of(**changes: Any) -> DecoderConfig:
    return read_config(GEMMA3 | changes, "config.json")[0]


def test_both_forms_of_ropes_are_the_same() -> None:
    by_kind = config_of(rope_parameters=ROPES)
    version4 = config_of(
        rope_theta=1_000_000,
        rope_local_base_freq=10_000,
        rope_scaling={"rope_type": "linear", "factor": 8.0},
    )
    assert by_kind == version4
    ropes = [config_of().attention(layer).rope for layer in range(6)]
    assert [rope.theta for rope in ropes if rope] == [1e4] * 5 + [1e6]
    windows = [config_of().attention(layer).window for layer in range(6)]
    assert windows == [512] * 5 + [0]


def test_a_window_as_long_as_the_context_leaves_the_ropes_apart() -> None:
    config = config_of(sliding_window=40_000)
    assert [config.attention(layer).window for layer in (0, 5)] == [0, 0]
    assert config.attention(0).rope != config.attention(5).rope


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ({"num_hidden_layers": 61}, 24**-0.5),
        ({"num_hidden_layers": 62}, 16**-0.5),
    ],
)
def test_the_scale_of_the_largest_in_gguf(
    changes: dict[str, Any],
    scale: float,
    tiny_checkpoint: Callable[..., Path],
    make_gguf: Callable[..., Path],
) -> None:
    folder = tiny_checkpoint("gemma3_text", hidden_size=64, intermediate_size=32, **changes)
    assert open_checkpoint(make_gguf(folder)).config.attention(0).scale == pytest.approx(scale)


def test_a_half_precision_checkpoint_adds_one_in_float32(
    tiny_checkpoint: Callable[..., Path],
) -> None:
    folder = tiny_checkpoint("gemma3_text", dtype="bfloat16")
    checkpoint = open_checkpoint(folder)
    name = "model.layers.0.self_attn.q_norm.weight"
    from safetensors.torch import load_file

    stored = load_file(folder / "model.safetensors")[name]
    assert stored.dtype == torch.bfloat16
    assert torch.equal(tensor_of(checkpoint, name), stored.float() + 1.0)


def test_end_of_turn_ends_an_answer_in_gguf(
    tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint("gemma3_text"), folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / file).read_text(encoding="utf-8")
        (folder / file).write_text(text.replace("<|endoftext|>", "<end_of_turn>"), encoding="utf-8")
    ids = {
        token["content"]: token["id"]
        for token in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    }
    assert ids["<end_of_turn>"] in open_checkpoint(make_gguf(folder)).generation.stop_ids


@pytest.mark.parametrize("version", [4, 5])
def test_the_text_model_of_a_model_with_eyes(version: int, tmp_path: Path) -> None:
    folder, reference = with_eyes(tmp_path, version)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.config.model_type == "gemma3_text"
    assert any("text model of a gemma3 model" in note for note in checkpoint.notes)
    tokens = prompt(40, 3)
    every = torch.arange(len(tokens))
    model = eager(folder, 64)
    with torch.no_grad():
        expected = reference(input_ids=tokens[None]).logits[0]
    assert_parity(model(tokens, every, torch.zeros_like(tokens), every), expected)


def with_eyes(folder: Path, version: int) -> tuple[Path, Any]:
    """Write a tiny model with a vision part, its names those of a version of transformers."""
    from safetensors.torch import load_file, save_file
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = SIZES | FAMILY_SIZES["gemma3_text"] | {"tie_word_embeddings": True}
    eyes = dict.fromkeys(("hidden_size", "intermediate_size", "image_size"), 32)
    eyes |= {"num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 16}
    config = Gemma3Config(text_config=text, vision_config=eyes, mm_tokens_per_image=4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Gemma3ForConditionalGeneration(config).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                torch.nn.init.uniform_(parameter, -0.5, 0.5)
            else:
                torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    stored = load_file(folder / "model.safetensors")
    names = {"model.language_model.": "language_model.model.", "model.vision": "vision"}
    other = {"model.multi": "multi"}
    renamed = {}
    for name, tensor in stored.items():
        plain = name.replace("language_model.model.", "model.language_model.")
        plain = re.sub(r"^(vision_tower|multi_modal_projector)", r"model.\1", plain)
        if version == 4:
            for new, old in (names | other).items():
                plain = plain.replace(new, old) if plain.startswith(new) else plain
        renamed[plain] = tensor.clone()
    prefix = "language_model.model." if version == 4 else "model.language_model."
    assert f"{prefix}embed_tokens.weight" in renamed
    save_file(renamed, folder / "model.safetensors")
    return folder, model


@pytest.mark.parametrize("outer", [True, False])
def test_the_whole_model_says_whether_its_head_is_tied(outer: bool) -> None:
    values = {"model_type": "gemma3", "tie_word_embeddings": outer}
    inner = {**GEMMA3, "tie_word_embeddings": not outer}
    config, _ = read_config({**values, "text_config": inner}, "config.json")
    assert config.tie_word_embeddings is outer


def test_a_wrapper_without_a_text_model() -> None:
    with pytest.raises(ConfigError, match="text_config: got None, expected an object"):
        read_config({"model_type": "gemma3"}, "config.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping: got 50.0, expected None"),
        ({"hidden_activation": "gelu"}, "hidden_activation: got 'gelu', expected"),
        ({"rope_parameters": ROPES | {"other": {}}}, "rope_parameters.other: got {}, a key not"),
        ({"rope_parameters": {"full_attention": 3}}, "rope_parameters.full_attention: got 3"),
        ({"layer_types": ["full_attention"]}, "layer_types: got"),
    ],
)
def test_what_it_cannot_honour(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config_of(**change)
    assert message in str(error.value)
