"""Granite 4's hybrids against transformers, from a tiny checkpoint to a program, and in GGUF: state
spaces with and without experts, attention with and without positions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import (
    assert_parity,
    check_at_once,
    check_bits,
    check_forced_routes,
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
from edge_llm.errors import CheckpointError, ConfigError
from edge_llm.export.recipes.file import load_recipe
from edge_llm.llm.blueprints import shipped
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.families.granitemoehybrid import LONGEST_STEP, GraniteMoeHybridConfig
from edge_llm.llm.registry import read_config
from edge_llm.program.file import Program

FAMILY = "granitemoehybrid"
DENSE = {"num_local_experts": 0, "num_experts_per_tok": 0}
CASES: dict[str, dict[str, Any]] = {
    "experts": {},
    "dense": {**DENSE, "tie_word_embeddings": True},
    "with positions": {"position_embedding_type": "rope", "num_local_experts": 5},
    "biases": {"mamba_proj_bias": True, "mamba_conv_bias": False, "attention_bias": True},
    "groups": {**DENSE, "mamba_n_groups": 2, "rms_norm_eps": 1e-2},
    "odd sizes": {
        "mamba_expand": 3,
        "mamba_n_heads": 12,
        "mamba_d_head": "auto",
        "mamba_d_state": 40,
        "mamba_d_conv": 3,
        "rms_norm_eps": 1e-2,
    },
}


def published(
    sizes: tuple[int, int, int, int, int, int],
    multipliers: tuple[float, float, float],
    *,
    heads: tuple[int, int] = (48, 64),
    experts: tuple[int, int, int] = (0, 0, 0),
    attending: tuple[int, ...] = (5, 15, 25, 35),
) -> dict[str, Any]:
    """``sizes``: width, layers, heads, heads of keys and values, ffn, context. ``multipliers``: of
    scores and of residuals, and what divides the logits. ``heads``: of state spaces, and their
    width. ``experts``: how many, how many are chosen, and their ffn."""
    dim, layers, attention_heads, kv_heads, ffn, context = sizes
    count, chosen, inner = experts
    return {
        "architectures": ["GraniteMoeHybridForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attention_multiplier": multipliers[0],
        "bos_token_id": 100257,
        "embedding_multiplier": 12,
        "eos_token_id": 100257,
        "hidden_act": "silu",
        "hidden_size": dim,
        "init_method": "mup",
        "initializer_range": 0.1,
        "intermediate_size": inner or ffn,
        "layer_types": ["attention" if i in attending else "mamba" for i in range(layers)],
        "logits_scaling": multipliers[2],
        "mamba_chunk_size": 256,
        "mamba_conv_bias": True,
        "mamba_d_conv": 4,
        "mamba_d_head": heads[1],
        "mamba_d_state": 128,
        "mamba_expand": 2,
        "mamba_n_groups": 1,
        "mamba_n_heads": heads[0],
        "mamba_proj_bias": False,
        "max_position_embeddings": context,
        "model_type": FAMILY,
        "normalization_function": "rmsnorm",
        "num_attention_heads": attention_heads,
        "num_experts_per_tok": chosen,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "num_local_experts": count,
        "output_router_logits": False,
        "pad_token_id": 100256,
        "position_embedding_type": "nope",
        "residual_multiplier": multipliers[1],
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 10000,
        "router_aux_loss_coef": 0.01,
        "shared_intermediate_size": ffn,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": 100352,
    }


# The published config of each model in configs/models, for tests/llm/test_model_catalogue.py.
PUBLISHED: dict[str, dict[str, Any]] = {
    "granite4-350m-h": published(
        (768, 32, 12, 4, 2048, 32768),
        (0.015625, 0.246, 3),
        heads=(48, 32),
        attending=(10, 13, 17, 27),
    ),
    "granite4-1b-h": published((1536, 40, 12, 4, 4096, 131072), (0.0078125, 0.22, 6)),
    "granite4-micro-h": published(
        (2048, 40, 32, 8, 8192, 131072), (0.015625, 0.22, 8), heads=(64, 64)
    ),
    "granite4-tiny-h": published(
        (1536, 40, 12, 4, 1024, 131072), (0.0078125, 0.22, 6), experts=(64, 6, 512)
    ),
    "granite4-small-h": published(
        (4096, 40, 32, 8, 1536, 131072),
        (0.0078125, 0.22, 16),
        heads=(128, 64),
        experts=(72, 10, 768),
    ),
}
# What is added to A_log and dt_bias of all heads.
GATES = {"slow": (-6.0, -2.0), "fast": (3.0, 0.0), "of both kinds": (None, None)}


@pytest.fixture(params=CASES)
def folder(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint(FAMILY, **CASES[request.param])


@pytest.mark.parametrize("check", [check_at_once, check_token_by_token, check_interleaved])
def test_eager(check: Callable[[Path], None], folder: Path) -> None:
    check(folder)


def test_fp32_program(folder: Path, tmp_path: Path) -> None:
    check_fp32_program(folder, tmp_path / "x.edge")


@pytest.mark.parametrize("folder", ["dense"], indirect=True)
def test_quantized_program(folder: Path, tmp_path: Path) -> None:
    check_quantized_program(folder, "8da4w", tmp_path / "x.edge")


@pytest.mark.parametrize("folder", ["experts"], indirect=True)
def test_quantized_experts(folder: Path, tmp_path: Path) -> None:
    check_forced_routes(folder, "8da4w", tmp_path / "x.edge")


@pytest.mark.parametrize("folder", ["experts", "dense"], indirect=True)
@pytest.mark.parametrize("scheme", ["fp32", "8da4w"])
def test_tokens_depend_on_those_before_alone(folder: Path, scheme: str, tmp_path: Path) -> None:
    check_bits(folder, scheme, tmp_path / "x.edge")


def with_gates(source: Path, folder: Path, rate: float | None, bias: float | None) -> Path:
    """Return a copy whose heads forget slowly or fast; None: by turns."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder)
    tensors = load_file(source / "model.safetensors")
    for name, values in tensors.items():
        if name.endswith("A_log"):
            values.copy_(torch.linspace(-7, 4, len(values)) if rate is None else values + rate)
        if name.endswith("dt_bias"):
            values.copy_(torch.linspace(6, -6, len(values)) if bias is None else values + bias)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("limits", [None, [0.01, 0.6]])
@pytest.mark.parametrize("gates", GATES)
def test_gates_of_every_kind_over_many_pages(
    gates: str,
    limits: list[float] | None,
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """transformers' chunks subtract sums of what is forgotten, and of heads that forget fast are
    off by more than we may be; chunks of one token are the recurrence."""
    changes = {} if limits is None else {"time_step_limit": limits}
    source = tiny_checkpoint(FAMILY, **DENSE, **changes, mamba_chunk_size=1)
    folder = with_gates(source, tmp_path / "gates", *GATES[gates])
    recipe = load_recipe("fp32", ["verify=false", "context=256"], model=str(folder))
    tokens = prompt(230, 5)
    (expected,) = reference(folder, 256, tokens)
    every = torch.arange(len(tokens))
    logits = eager(folder, 256)(tokens, every, torch.zeros_like(tokens), every)
    assert_parity(logits, expected)
    with Program.open(edge_llm.export(recipe, output=tmp_path / "x.edge")) as program:
        with running(program) as step:
            once = step((0, 0, tokens))
        assert_parity(once, expected)
        with running(program) as step:
            ends = [0, 1, 17, 48, 64, 65, 130, 192, 209, 230]
            parts = [step((0, begin, tokens[begin:end])) for begin, end in pairwise(ends)]
        assert torch.equal(torch.cat(parts), once)


def test_one_token_at_a_time_as_transformers_does_it(
    tiny_checkpoint: Callable[..., Path],
) -> None:
    """Its recurrent form, which is written apart from that for prompts."""
    from fixtures_checkpoints import reference_model

    folder = tiny_checkpoint(FAMILY, **DENSE)
    tokens, model, kept = prompt(40, 8), reference_model(folder), None
    rows = []
    with torch.no_grad():
        for token in tokens:
            out = model(token[None, None], cache=kept, use_cache=True)
            kept = out.cache
            rows.append(out.logits[0, 0])
    every = torch.arange(len(tokens))
    logits = eager(folder, 64)(tokens, every, torch.zeros_like(tokens), every)
    assert_parity(logits, torch.stack(rows))


def test_preemption_changes_no_bit(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_preemption(tiny_checkpoint(FAMILY), tmp_path / "x.edge", monkeypatch)


@pytest.mark.parametrize("name", ["experts", "dense", "with positions", "groups"])
def test_gguf_is_the_same_model(
    name: str, tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    folder = tiny_checkpoint(FAMILY, **CASES[name])
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder))
    assert_same_model(made, source)


def test_integers_of_two_tensors_are_one_parameter_s(
    tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    folder = tiny_checkpoint(FAMILY, **CASES["dense"])
    made = open_checkpoint(make_gguf(folder, "Q4_0"))
    name = "model.layers.1.shared_mlp.input_linear.weight"
    assert name in made.integer_formats
    for taken in made.integer_formats:
        np.testing.assert_array_equal(made.integers(taken).dequantize(), made.tensor(taken))
    assert made.shapes[name] == (320, 64)


def test_gate_and_up_of_different_types_are_floats(
    tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    import gguf

    def edit(writer: Any) -> None:
        tensor = writer.tensors[0]["blk.0.ffn_up.weight"]
        tensor.dtype, tensor.nbytes = gguf.GGMLQuantizationType.F32, 160 * 64 * 4
        tensor.shape, tensor.tensor = (160, 64), np.ones((160, 64), np.float32)

    folder = tiny_checkpoint(FAMILY, **CASES["dense"])
    made = open_checkpoint(make_gguf(folder, "Q4_0", edit=edit))
    name = "model.layers.0.shared_mlp.input_linear.weight"
    assert name not in made.integer_formats
    assert (made.tensor(name)[160:] == 1.0).all()
    assert not (made.tensor(name)[:160] == 1.0).all()


def test_one_tensor_of_two_is_left_over(
    tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    folder = tiny_checkpoint(FAMILY, **CASES["dense"])
    without = make_gguf(folder, edit=lambda writer: writer.tensors[0].pop("blk.0.ffn_up.weight"))
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(without)
    assert "blk.0.ffn_gate.weight" in str(error.value)
    assert "model.layers.0.shared_mlp.input_linear.weight" in str(error.value)

    def twice(writer: Any) -> None:
        writer.add_tensor("blk.0.ffn_down_shexp.weight", np.ones((64, 160), np.float32))

    with pytest.raises(CheckpointError, match=r"blk\.0\.ffn_down_shexp\.weight"):
        open_checkpoint(make_gguf(folder, edit=twice))


def config_of(name: str = "granite4-tiny-h", **changes: Any) -> GraniteMoeHybridConfig:
    config, unread = read_config(PUBLISHED[name] | changes, "config.json")
    assert isinstance(config, GraniteMoeHybridConfig)
    assert not unread
    return config


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_are_read_whole(name: str) -> None:
    config = config_of(name)
    assert config.attention(0) is None
    attending = [i for i in range(config.num_hidden_layers) if config.attention(i) is not None]
    assert len(attending) == 4
    shape = config.attention(attending[0])
    assert shape is not None
    assert shape.rope is None
    assert config.most_step == LONGEST_STEP
    assert shipped.blueprint_of(config) is not None


def test_infinity_is_said_in_two_ways() -> None:
    for infinity in ({"__float__": "Infinity"}, float("inf"), 10**400):
        assert config_of(time_step_limit=[0.0, infinity]) == config_of()
    assert config_of(time_step_limit=[0.5, 2]).most_step == 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_types": ["mamba"] * 3}, "layer_types: got ['mamba', 'mamba', 'mamba'], expected"),
        ({"layer_types": ["sliding"] * 40}, "layer_types: got"),
        ({"mamba_n_groups": 5}, "mamba_n_heads: got 48, expected a multiple of mamba_n_groups 5"),
        ({"mamba_d_head": 65}, "mamba_d_head: got 65, expected mamba_expand * hidden_size 3072 /"),
        ({"mamba_d_state": 512}, "mamba_d_state: got 512, expected an integer"),
        ({"num_experts_per_tok": 65}, "num_experts_per_tok: got 65, expected 1 to"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok: got 0, expected 1 to"),
        ({"position_embedding_type": "alibi"}, "position_embedding_type: got 'alibi', expected"),
        ({"time_step_limit": [0.1]}, "time_step_limit: got [0.1], expected two numbers"),
        ({"time_step_limit": [2.0, 1.0]}, "time_step_limit: got [2.0, 1.0], expected two numbers"),
        ({"time_step_limit": [0.0, "inf"]}, "time_step_limit: got [0.0, 'inf'], expected"),
        ({"hidden_act": "gelu"}, "hidden_act: got 'gelu', expected 'silu'"),
    ],
)
def test_what_it_cannot_honour(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config_of(**change)
    assert message in str(error.value)


def test_layers_are_named_as_transformers_4_and_5_do(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_checkpoint(FAMILY), tmp_path / "copy")
    file = tmp_path / "copy" / "config.json"
    values = json.loads(file.read_text())
    values["layer_types"] = ["mamba", "attention", "mamba"]
    rope = values.pop("rope_parameters")
    values |= {"rope_theta": rope["rope_theta"], "rope_scaling": None}
    values |= {"time_step_limit": None, "position_embedding_type": "nope"}
    file.write_text(json.dumps(values))
    checkpoint = open_checkpoint(tmp_path / "copy")
    assert checkpoint.config == open_checkpoint(tiny_checkpoint(FAMILY)).config
    assert checkpoint.unread_config_keys == ()


def test_a_gguf_that_says_nothing_of_rotation_rotates(
    tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    """As llama.cpp takes it. Files without rotation give a context that is none, 2^20 tokens."""

    def edit(writer: Any) -> None:
        del writer.kv_data[0]["granitehybrid.rope.scaling.finetuned"]
        writer.kv_data[0]["granitehybrid.context_length"].value = 2**20

    config = open_checkpoint(make_gguf(tiny_checkpoint(FAMILY), edit=edit)).config
    assert isinstance(config, GraniteMoeHybridConfig)
    assert config.rotates
    assert config.max_position_embeddings == 2**20
