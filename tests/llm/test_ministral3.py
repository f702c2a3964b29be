"""Ministral 3 against transformers, from a tiny checkpoint to a program, and the same model in
GGUF; and the text models of Mistral's models with eyes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures_checkpoints import FAMILY_SIZES, MINISTRAL3_ROPE, SIZES
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
from edge_llm.llm.rope import Growth, Rope
from edge_llm.llm.rope_tables import rope_tables

PLAIN = {"rope_type": "default", "rope_theta": 5_000.0}
CASES: dict[str, dict[str, Any]] = {
    "tied": {"tie_word_embeddings": True},
    "untied": {"rms_norm_eps": 1e-2},
    "window": {"sliding_window": 19},
    "ramp": {
        "rope_parameters": MINISTRAL3_ROPE
        | {"mscale": 0.7, "mscale_all_dim": 1.3, "truncate": False, "beta_fast": 4.0},
    },
    "attention factor": {"rope_parameters": MINISTRAL3_ROPE | {"attention_factor": 1.3}},
    "factor of the lengths": {"rope_parameters": MINISTRAL3_ROPE | {"factor": None}},
}
MINISTRAL3: dict[str, Any] = {
    "architectures": ["Mistral3ForConditionalGeneration"],
    "dtype": "bfloat16",
    "image_token_index": 10,
    "model_type": "mistral3",
    "multimodal_projector_bias": False,
    "projector_hidden_act": "gelu",
    "spatial_merge_size": 2,
    "vision_config": {"model_type": "pixtral"},
    "vision_feature_layer": -1,
}
TEXT: dict[str, Any] = {
    "attention_dropout": 0.0,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 3072,
    "initializer_range": 0.02,
    "intermediate_size": 9216,
    "max_position_embeddings": 262144,
    "model_type": "ministral3",
    "num_attention_heads": 32,
    "num_hidden_layers": 26,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_parameters": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 16.0,
        "llama_4_scaling_beta": 0.1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 16384,
        "rope_theta": 1000000.0,
        "rope_type": "yarn",
        "type": "yarn",
    },
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": 131072,
}
# The published config of each model in configs/models, for tests/llm/test_model_catalogue.py.
PUBLISHED: dict[str, dict[str, Any]] = {
    "ministral3-3b": MINISTRAL3 | {"text_config": TEXT | {"tie_word_embeddings": True}},
    "ministral3-8b": MINISTRAL3
    | {
        "text_config": TEXT
        | {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 34}
    },
    "ministral3-14b": MINISTRAL3
    | {
        "text_config": TEXT
        | {"hidden_size": 5120, "intermediate_size": 16384, "num_hidden_layers": 40}
    },
}


@pytest.fixture(params=CASES)
def folder(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("ministral3", **CASES[request.param])


@pytest.mark.parametrize("check", [check_at_once, check_token_by_token, check_interleaved])
def test_eager(check: Callable[[Path], None], folder: Path) -> None:
    check(folder)


def test_fp32_program(folder: Path, tmp_path: Path) -> None:
    check_fp32_program(folder, tmp_path / "x.edge")


@pytest.mark.parametrize("folder", ["tied", "untied"], indirect=True)
def test_quantized_program(folder: Path, tmp_path: Path) -> None:
    check_quantized_program(folder, "8da4w", tmp_path / "x.edge")


@pytest.mark.parametrize("scheme", ["fp32", "8da4w"])
def test_tokens_depend_on_those_before_alone(
    scheme: str, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    check_bits(tiny_checkpoint("ministral3"), scheme, tmp_path / "x.edge")


@pytest.mark.parametrize("folder", ["tied", "untied"], indirect=True)
def test_gguf_is_the_same_model(folder: Path, make_gguf: Callable[..., Path]) -> None:
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder))
    assert_same_model(made, source)


def test_gguf_without_temperature(
    tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path], tmp_path: Path
) -> None:
    """As llama.cpp's converter writes the text model of Mistral Small with eyes."""
    shutil.copytree(tiny_checkpoint("mistral", sliding_window=None), tmp_path / "copy")
    file = tmp_path / "copy" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "ministral3"}))
    made = open_checkpoint(make_gguf(tmp_path / "copy"))
    assert made.config.model_type == "ministral3"
    assert made.config.attention(0).query_rope is None
    tokens = prompt(70, 3)
    every = torch.arange(len(tokens))
    one, other = (
        eager(source, 80)(tokens, every, torch.zeros_like(tokens), every)
        for source in (
            tiny_checkpoint("mistral", sliding_window=None),
            make_gguf(tmp_path / "copy"),
        )
    )
    assert torch.equal(one, other)


def test_both_forms_of_the_rope_are_the_same() -> None:
    rope = {key: value for key, value in TEXT["rope_parameters"].items() if key != "rope_theta"}
    version4 = {key: value for key, value in TEXT.items() if key != "rope_parameters"}
    version4 |= {"rope_theta": 1_000_000, "rope_scaling": rope}
    assert read_config(version4, "config.json") == read_config(TEXT, "config.json")
    shape = read_config(TEXT, "config.json")[0].attention(0)
    assert shape.query_rope == replace(shape.rope, growth=Growth(0.1, 16384))  # type: ignore[type-var]


def test_queries_grow_where_the_length_trained_with_is_passed_again() -> None:
    plain = Rope(1e4, 24)
    growing = replace(plain, growth=Growth(0.4, 32))
    for table, grown in zip(rope_tables(plain, 100), rope_tables(growing, 100), strict=True):
        assert (grown[:32] == table[:32]).all()
        expected = 1 + 0.4 * torch.log(1 + torch.floor(torch.arange(100) / 32))
        torch.testing.assert_close(
            torch.from_numpy(grown), torch.from_numpy(table) * expected[:, None]
        )


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("inner", ["mistral", "ministral3"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_text_model_of_a_model_with_eyes(
    version: int, inner: str, tied: bool, tmp_path: Path
) -> None:
    folder, reference = with_eyes(tmp_path, version, inner, tied)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.config.model_type == inner
    assert any("text model of a mistral3 model" in note for note in checkpoint.notes)
    tokens = prompt(80, 3)
    every = torch.arange(len(tokens))
    with torch.no_grad():
        expected = reference(input_ids=tokens[None]).logits[0]
    got = eager(folder, 96)(tokens, every, torch.zeros_like(tokens), every)
    assert_parity(got, expected)


def with_eyes(folder: Path, version: int, inner: str, tied: bool) -> tuple[Path, Any]:
    """Write a tiny model with a vision part, its names those of a version of transformers."""
    from safetensors.torch import load_file, save_file
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    text = SIZES | FAMILY_SIZES[inner] | {"model_type": inner, "tie_word_embeddings": tied}
    eyes = dict.fromkeys(("hidden_size", "intermediate_size", "image_size"), 32)
    eyes |= {"num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 16, "head_dim": 16}
    config = Mistral3Config(
        text_config=text,
        vision_config=eyes | {"model_type": "pixtral"},
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Mistral3ForConditionalGeneration(config).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
            else:
                torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    renamed = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        plain = re.sub(r"^language_model\.model\.", "model.language_model.", name)
        plain = plain.removeprefix("language_model.")
        plain = re.sub(r"^(vision_tower|multi_modal_projector)", r"model.\1", plain)
        if version == 4:
            plain = re.sub(r"^model\.language_model\.", "language_model.model.", plain)
            plain = re.sub(r"^lm_head", "language_model.lm_head", plain)
            plain = re.sub(r"^model\.(vision_tower|multi_modal)", r"\1", plain)
        renamed[plain] = tensor.clone()
    prefix = "language_model.model." if version == 4 else "model.language_model."
    assert f"{prefix}embed_tokens.weight" in renamed
    head = "language_model.lm_head.weight" if version == 4 else "lm_head.weight"
    assert (head in renamed) is not tied
    save_file(renamed, folder / "model.safetensors")
    return folder, model


def test_another_text_model_inside() -> None:
    values = MINISTRAL3 | {"text_config": TEXT | {"model_type": "mistral4"}}
    message = "text_config.model_type: got 'mistral4', expected 'ministral3' or 'mistral'"
    with pytest.raises(ConfigError, match=message):
        read_config(values, "config.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"llama_4_scaling_beta": "x"}, "llama_4_scaling_beta: got 'x', expected a number"),
        ({"factor": -1}, "factor: got -1, expected a number"),
        ({"apply_yarn": True}, "rope_parameters.apply_yarn: got True, a key not supported"),
    ],
)
def test_what_it_cannot_honour(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_config(TEXT | {"rope_parameters": TEXT["rope_parameters"] | change}, "config.json")
    assert message in str(error.value)


def test_other_families_do_not_grow() -> None:
    values = TEXT | {"model_type": "llama"}
    with pytest.raises(ConfigError, match=r"llama_4_scaling_beta: got 0\.1, a key not supported"):
        read_config(values, "config.json")
