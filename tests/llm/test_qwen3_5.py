"""Qwen3.5's text models against transformers' recurrent form, from a tiny checkpoint to a program,
and the same models in GGUF."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_checkpoints import FAMILY_SIZES, SIZES
from parity import (
    assert_parity,
    check_at_once,
    check_bits,
    check_fp32_program,
    check_interleaved,
    check_preemption,
    check_quantized_program,
    check_token_by_token,
    eager,
    prompt,
    reference,
    running,
)
from stored_tensors import assert_same_model

import edge_llm
from edge_llm.errors import ConfigError
from edge_llm.export.recipes.file import load_recipe
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.families.qwen3_5_text import Qwen35TextConfig
from edge_llm.llm.registry import read_config
from edge_llm.program.file import Program

FAMILY = "qwen3_5_text"
LINEAR, FULL = "linear_attention", "full_attention"
EQUAL_HEADS = {"linear_num_key_heads": 3, "linear_num_value_heads": 3}
CASES: dict[str, dict[str, Any]] = {
    "more value heads": {},
    "equal heads": EQUAL_HEADS | {"linear_key_head_dim": 16, "linear_value_head_dim": 32},
    "tied": {"tie_word_embeddings": True, "linear_conv_kernel_dim": 2, "rms_norm_eps": 1e-2},
    "biased": {"attention_bias": True, "num_key_value_heads": 4},
    "by the interval": {"layer_types": None, "num_hidden_layers": 5, "full_attention_interval": 4},
}
# What the gates of all heads are near, as the checkpoint says it.
GATES = {"near 1": (-9.0, -3.0), "near 0": (2.5, 4.0), "of both kinds": (None, None)}


def published(
    sizes: tuple[int, int, int, int, int, int], *, value_heads: int = 16, tied: bool = True
) -> dict[str, Any]:
    """``sizes``: width, layers, heads, heads of keys and values, ffn."""
    dim, layers, heads, kv_heads, ffn = sizes[:5]
    return {
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "image_token_id": 248056,
        "model_type": "qwen3_5",
        "text_config": {
            "attention_bias": False,
            "attention_dropout": 0.0,
            "attn_output_gate": True,
            "dtype": "bfloat16",
            "eos_token_id": 248044,
            "full_attention_interval": 4,
            "head_dim": 256,
            "hidden_act": "silu",
            "hidden_size": dim,
            "initializer_range": 0.02,
            "intermediate_size": ffn,
            "layer_types": [LINEAR, LINEAR, LINEAR, FULL] * (layers // 4),
            "linear_conv_kernel_dim": 4,
            "linear_key_head_dim": 128,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": value_heads,
            "linear_value_head_dim": 128,
            "mamba_ssm_dtype": "float32",
            "max_position_embeddings": 262144,
            "mlp_only_layers": [],
            "model_type": FAMILY,
            "mtp_num_hidden_layers": 1,
            "mtp_use_dedicated_embeddings": False,
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "num_key_value_heads": kv_heads,
            "rms_norm_eps": 1e-06,
            "rope_parameters": {
                "mrope_interleaved": True,
                "mrope_section": [11, 11, 10],
                "partial_rotary_factor": 0.25,
                "rope_theta": 10000000,
                "rope_type": "default",
            },
            "tie_word_embeddings": tied,
            "use_cache": True,
            "vocab_size": 248320,
        },
        "tie_word_embeddings": tied,
        "video_token_id": 248057,
        "vision_config": {"model_type": "qwen3_5"},
        "vision_end_token_id": 248054,
        "vision_start_token_id": 248053,
    }


# The published config of each model in configs/models, for tests/llm/test_model_catalogue.py.
PUBLISHED: dict[str, dict[str, Any]] = {
    "qwen3.5-0.8b": published((1024, 24, 8, 2, 3584, 0)),
    "qwen3.5-2b": published((2048, 24, 8, 2, 6144, 0)),
    "qwen3.5-4b": published((2560, 32, 16, 4, 9216, 0), value_heads=32),
    "qwen3.5-9b": published((4096, 32, 16, 4, 12288, 0), value_heads=32, tied=False),
    "qwen3.5-27b": published((5120, 64, 24, 4, 17408, 0), value_heads=48, tied=False),
}


@pytest.fixture(autouse=True)
def _recurrent_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' chunked form, which prompts take, is off by up to 9e-5 by itself."""
    from transformers.models.qwen3_5 import modeling_qwen3_5 as theirs

    recurrent = theirs.torch_recurrent_gated_delta_rule
    monkeypatch.setattr(theirs, "torch_chunk_gated_delta_rule", recurrent)


@pytest.fixture(params=CASES)
def folder(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint(FAMILY, **CASES[request.param])


@pytest.mark.parametrize("check", [check_at_once, check_token_by_token, check_interleaved])
def test_eager(check: Callable[[Path], None], folder: Path) -> None:
    check(folder)


def test_fp32_program(folder: Path, tmp_path: Path) -> None:
    check_fp32_program(folder, tmp_path / "x.edge")


def test_quantized_program(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny_checkpoint(FAMILY, num_hidden_layers=2, layer_types=[LINEAR, FULL])
    check_quantized_program(folder, "8da4w", tmp_path / "x.edge")
    with Program.open(tmp_path / "x.edge") as program:
        formats = {weight.name: weight.format.name for weight in program.plan.weights}
    gates = [form for name, form in formats.items() if "in_proj_a" in name or "in_proj_b" in name]
    assert set(gates) == {"f16"}


@pytest.fixture(params=GATES)
def with_gates(
    request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> Path:
    """A checkpoint whose heads forget at once, or nearly never, or both by turns."""
    from safetensors.torch import load_file, save_file

    source = tiny_checkpoint(FAMILY)
    folder = tmp_path / "gates"
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(source / "model.safetensors")
    rate, bias = GATES[request.param]
    for name, values in tensors.items():
        if name.endswith("A_log"):
            values.copy_(torch.linspace(-8, 3, len(values)) if rate is None else values + rate)
        if name.endswith("dt_bias"):
            values.copy_(values if bias is None else values + bias)
        if name.endswith("in_proj_a.weight"):
            values *= 8
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_gates_of_every_kind_over_many_pages(with_gates: Path, tmp_path: Path) -> None:
    recipe = load_recipe("fp32", ["verify=false", "context=256"], model=str(with_gates))
    tokens = prompt(230, 5)
    (expected,) = reference(with_gates, 256, tokens)
    every = torch.arange(len(tokens))
    logits = eager(with_gates, 256)(tokens, every, torch.zeros_like(tokens), every)
    assert_parity(logits, expected)
    with Program.open(edge_llm.export(recipe, output=tmp_path / "x.edge")) as program:
        with running(program) as step:
            once = step((0, 0, tokens))
        assert_parity(once, expected)
        with running(program) as step:
            ends = [0, 1, 17, 48, 64, 65, 130, 192, 209, 230]
            parts = [step((0, begin, tokens[begin:end])) for begin, end in pairwise(ends)]
        assert torch.equal(torch.cat(parts), once)


@pytest.mark.parametrize("scheme", ["8da4w", "fp32"])
def test_tokens_depend_on_those_before_alone(
    scheme: str, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    check_bits(tiny_checkpoint(FAMILY), scheme, tmp_path / "x.edge")


def test_preemption_changes_no_bit(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_preemption(tiny_checkpoint(FAMILY), tmp_path / "x.edge", monkeypatch)


@pytest.mark.parametrize("name", ["more value heads", "equal heads", "tied"])
def test_gguf_is_the_same_model(
    name: str, tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    folder = tiny_checkpoint(FAMILY, **CASES[name])
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder))
    assert_same_model(made, source)


@pytest.mark.parametrize("size", [16, 32])
def test_integers_of_gguf_are_in_the_order_of_the_parameters(
    size: int, tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    folder = tiny_checkpoint(FAMILY, intermediate_size=128, linear_value_head_dim=size)
    made = open_checkpoint(make_gguf(folder, "Q4_0"))
    taken = {name for name in made.integer_formats if "linear_attn" in name}
    assert any("in_proj_qkv" in name for name in taken)
    # Its columns change places, which they can where a head has whole groups.
    assert any("out_proj" in name for name in taken) is (size == 32)
    for name in taken:
        np.testing.assert_array_equal(made.integers(name).dequantize(), made.tensor(name))


def test_layers_that_predict_are_left_out_of_gguf(
    tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    def edit(writer: Any) -> None:
        writer.add_nextn_predict_layers(1)
        writer.kv_data[0]["qwen35.block_count"].value = 5
        writer.add_tensor("blk.4.nextn.eh_proj.weight", np.zeros((64, 128), np.float32))
        writer.add_tensor("blk.4.attn_q.weight", np.zeros((256, 64), np.float32))

    folder = tiny_checkpoint(FAMILY)
    made = open_checkpoint(make_gguf(folder, edit=edit))
    assert made.shapes == open_checkpoint(folder).shapes
    assert any("predict further tokens are left out" in note for note in made.notes)


def test_a_number_for_each_layer_that_is_always_the_same_is_one(
    tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    def edit(writer: Any) -> None:
        del writer.kv_data[0]["qwen35.block_count"]
        writer.add_array("qwen35.block_count", [4, 4])

    folder = tiny_checkpoint(FAMILY)
    made = open_checkpoint(make_gguf(folder, edit=edit))
    assert made.config == open_checkpoint(folder).config


def test_the_text_model_of_a_model_with_eyes(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    text = SIZES | FAMILY_SIZES[FAMILY] | {"tie_word_embeddings": True}
    eyes = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2}
    eyes |= {"out_hidden_size": 64, "num_position_embeddings": 16}
    config = Qwen3_5Config(text_config=text, vision_config=eyes, tie_word_embeddings=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen3_5ForConditionalGeneration(config).eval()
        for name, parameter in model.named_parameters():
            if not name.endswith("norm.weight"):
                torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    stored["mtp.fc.weight"] = torch.zeros(64, 128)
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.config.model_type == FAMILY
    assert any("text model of a qwen3_5 model" in note for note in checkpoint.notes)
    assert any("predict further tokens are left out" in note for note in checkpoint.notes)
    tokens = prompt(40, 3)
    every = torch.arange(len(tokens))
    with torch.no_grad():
        expected = model(input_ids=tokens[None]).logits[0]
    logits = eager(tmp_path, 64)(tokens, every, torch.zeros_like(tokens), every)
    assert_parity(logits, expected)


def config_of(**changes: Any) -> Qwen35TextConfig:
    config, unread = read_config(PUBLISHED["qwen3.5-4b"]["text_config"] | changes, "config.json")
    assert isinstance(config, Qwen35TextConfig)
    assert not unread
    return config


def test_published_configs_are_read_whole() -> None:
    for values in PUBLISHED.values():
        config, unread = read_config(values, "config.json")
        assert not unread
        assert config == read_config(values["text_config"] | {"layer_types": None}, "x")[0]
    assert [config_of().attention(layer) is None for layer in range(4)] == [True] * 3 + [False]
    shape = config_of().attention(3)
    assert shape is not None
    assert shape.rope is not None
    assert shape.rope.dim == 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attn_output_gate": False}, "attn_output_gate: got False, expected True"),
        ({"hidden_act": "gelu"}, "hidden_act: got 'gelu', expected 'silu'"),
        ({"linear_num_value_heads": 2**20}, "linear_num_value_heads: got 1048576, expected an int"),
        ({"linear_value_head_dim": 512}, "linear_value_head_dim: got 512, expected an integer"),
        ({"linear_num_value_heads": 24}, "linear_num_value_heads: got 24, expected a multiple of"),
        ({"layer_types": [FULL]}, "layer_types: got ['full_attention'], expected"),
        ({"layer_types": ["sliding_attention"] * 32}, "layer_types: got"),
        ({"mlp_only_layers": [3]}, "mlp_only_layers: got [3]"),
        ({"num_experts": 8}, "num_experts: got 8"),
        (
            {"rope_parameters": {"rope_theta": 1e7, "mrope_width": 3}},
            "rope_parameters.mrope_width: got 3, a key not supported",
        ),
    ],
)
def test_what_it_cannot_honour(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config_of(**change)
    assert message in str(error.value)


def test_a_rate_in_gguf_that_is_none_is_no_number(
    tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    """Where -e^A_log should be, a file has something else: the export finds NaN in a weight."""
    folder = tiny_checkpoint(FAMILY)

    def edit(writer: Any) -> None:
        writer.tensors[0]["blk.0.ssm_a"].tensor[:] = 1.0

    made = open_checkpoint(make_gguf(folder, edit=edit))
    assert np.isnan(made.tensor("model.layers.0.linear_attn.A_log")).all()


def test_settings_of_a_folder(tiny_checkpoint: Callable[..., Path]) -> None:
    values = json.loads((tiny_checkpoint(FAMILY) / "config.json").read_text(encoding="utf-8"))
    config, unread = read_config(values, "config.json")
    assert not unread
    assert config.attention(0) is None
