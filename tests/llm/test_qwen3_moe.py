"""Qwen3 with experts against transformers, from a tiny checkpoint to a program, and the same model
in GGUF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import (
    check_at_once,
    check_bits,
    check_fp32_program,
    check_interleaved,
    check_quantized_program,
    check_token_by_token,
)
from stored_tensors import tensor_of

import edge_llm
from edge_llm.errors import ConfigError, ExportError
from edge_llm.export.pipeline import make_program
from edge_llm.export.recipes.file import load_recipe
from edge_llm.llm.blueprints.shipped import blueprint_of
from edge_llm.llm.checkpoints.open import open_checkpoint
from edge_llm.llm.registry import read_config
from edge_llm.program import cost

CASES: dict[str, dict[str, Any]] = {
    "sparse": {"mlp_only_layers": []},
    "mixed": {},
    "every-second": {"mlp_only_layers": [], "decoder_sparse_step": 2, "norm_topk_prob": False},
    "tied": {"tie_word_embeddings": True, "attention_bias": True, "num_experts": 7},
}

A3B: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "decoder_sparse_step": 1,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 6144,
    "max_position_embeddings": 40960,
    "max_window_layers": 48,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "output_router_logits": False,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.001,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
LONG = A3B | {"max_position_embeddings": 262144, "rope_theta": 10000000.0}
# The published config of each model in configs/models, for tests/llm/test_model_catalogue.py.
PUBLISHED: dict[str, dict[str, Any]] = {
    "qwen3-30b-a3b": A3B,
    "qwen3-30b-a3b-2507": LONG,
    "qwen3-coder-30b-a3b": LONG
    | {"qkv_bias": False, "use_qk_norm": True, "shared_expert_intermediate_size": 0},
}


@pytest.fixture(params=CASES)
def folder(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("qwen3_moe", **CASES[request.param])


@pytest.mark.parametrize("check", [check_at_once, check_token_by_token, check_interleaved])
def test_eager(check: Callable[[Path], None], folder: Path) -> None:
    check(folder)


def test_fp32_program(folder: Path, tmp_path: Path) -> None:
    check_fp32_program(folder, tmp_path / "x.edge")


@pytest.mark.parametrize("folder", ["mixed", "tied"], indirect=True)
def test_quantized_program(folder: Path, tmp_path: Path) -> None:
    check_quantized_program(folder, "8da4w", tmp_path / "x.edge")


def test_tokens_depend_on_those_before_alone(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    check_bits(tiny_checkpoint("qwen3_moe"), "8da4w", tmp_path / "x.edge")


@pytest.mark.parametrize("quant", ["F32", "Q4_1", "Q4_K"])
def test_gguf_is_the_same_model(
    quant: str, tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path], tmp_path: Path
) -> None:
    sizes = {"hidden_size": 256, "moe_intermediate_size": 256, "head_dim": 64}
    folder = tiny_checkpoint("qwen3_moe", **sizes, mlp_only_layers=[])
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder, quant))
    assert made.config == source.config
    assert made.shapes == source.shapes
    if quant == "F32":
        for name in source.shapes:
            assert torch.equal(tensor_of(made, name), tensor_of(source, name)), name
        return
    recipe = load_recipe("8da4w", model=str(made.sources[0]))
    outcome = make_program(recipe, output=tmp_path / "x.edge")
    rows = {row["name"]: row for row in outcome.report["weights"]}
    row = rows["model.layers.1.mlp.experts.up_proj"]
    assert (row["outcome"], row["source"], row["shape"]) == ("unchanged", quant, [12, 256, 256])
    assert rows["model.layers.1.mlp.gate.weight"]["format"] == "f32"
    assert outcome.verification["same_numbers"]["kl"] < 1e-3
    assert outcome.verification["route_flips"]["same_numbers"] < 0.01


def test_gates_have_the_format_of_what_they_let_through(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    model = str(tiny_checkpoint("qwen3_moe"))
    settings = ["verify=false", "overrides={'*.experts.up_proj': i8}"]
    with pytest.raises(ExportError, match=r"gate_proj and up_proj have different formats"):
        edge_llm.export(load_recipe("8da4w", settings, model=model), output=tmp_path / "x.edge")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_experts_per_tok": 200}, "num_experts_per_tok: got 200, expected an integer from 1"),
        ({"num_experts": 5000}, "num_experts: got 5000, expected an integer from 1 to 1024"),
        ({"mlp_only_layers": [48]}, "mlp_only_layers: got [48], expected some of the numbers 0"),
        ({"use_qk_norm": False}, "use_qk_norm: got False, expected True"),
        ({"shared_expert_intermediate_size": 64}, "shared_expert_intermediate_size: got 64"),
    ],
)
def test_what_it_cannot_honour(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_config(A3B | change, "config.json")
    assert message in str(error.value)


def test_costs_are_those_of_the_chosen_experts() -> None:
    config, _ = read_config(A3B, "config.json")
    blueprint = blueprint_of(config)
    assert blueprint is not None
    plan = blueprint.plan(config, 512)
    read = cost.weight_bytes(plan) / 4  # float32
    table = 151936 * 2048
    active = read - table  # the head; a token reads one row of the other table
    assert 2.7e9 < active < 2.8e9
    assert cost.stored_bytes(plan) / 4 == pytest.approx(30_532_122_624, rel=1e-3)
    operations = cost.prefill_operations(plan, 1)
    assert operations == pytest.approx(2 * read, rel=0.01)
    (experts, *_) = [op for op in plan.instructions if op.op == "experts"]
    few, many = (
        cost.instruction_cost(plan, experts, tokens=tokens, kv_dtype="f16").bytes
        for tokens in (1, 512)
    )
    whole = 4 * 3 * 128 * 768 * 2048
    assert few == pytest.approx(whole / 16, rel=1e-3)
    assert 0.99 * whole < many <= whole
