"""Qwen3.5 with experts against transformers, from a tiny checkpoint to a program, and in GGUF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import (
    check_at_once,
    check_bits,
    check_forced_routes,
    check_fp32_program,
    check_interleaved,
    check_token_by_token,
)
from stored_tensors import assert_same_parameters

from edge_llm.llm.checkpoints.open import open_checkpoint

FAMILY = "qwen3_5_moe_text"
CASES: dict[str, dict[str, Any]] = {
    "more value heads": {},
    "equal heads": {"linear_num_key_heads": 3, "linear_num_value_heads": 3, "num_experts": 7},
}

TEXT: dict[str, Any] = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_output_gate": True,
    "eos_token_id": 248044,
    "full_attention_interval": 4,
    "head_dim": 256,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "layer_types": [*["linear_attention"] * 3, "full_attention"] * 10,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_value_head_dim": 128,
    "mamba_ssm_dtype": "float32",
    "max_position_embeddings": 262144,
    "mlp_only_layers": [],
    "model_type": FAMILY,
    "moe_intermediate_size": 512,
    "mtp_num_hidden_layers": 1,
    "mtp_use_dedicated_embeddings": False,
    "num_attention_heads": 16,
    "num_experts": 256,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 40,
    "num_key_value_heads": 2,
    "output_router_logits": False,
    "rms_norm_eps": 1e-06,
    "rope_parameters": {
        "mrope_interleaved": True,
        "mrope_section": [11, 11, 10],
        "partial_rotary_factor": 0.25,
        "rope_theta": 10000000,
        "rope_type": "default",
    },
    "router_aux_loss_coef": 0.001,
    "shared_expert_intermediate_size": 512,
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": 248320,
}
# The published config of each model in configs/models, for tests/llm/test_model_catalogue.py.
PUBLISHED: dict[str, dict[str, Any]] = {
    "qwen3.5-35b-a3b": {
        "architectures": ["Qwen3_5MoeForConditionalGeneration"],
        "model_type": "qwen3_5_moe",
        "text_config": TEXT,
        "tie_word_embeddings": False,
        "vision_config": {"model_type": "qwen3_5_moe"},
    }
}


@pytest.fixture(autouse=True)
def _recurrent_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """The form in chunks alone is off by nearly as much as we may be."""
    from transformers.models.qwen3_5_moe import modeling_qwen3_5_moe as theirs

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
    check_forced_routes(tiny_checkpoint(FAMILY), "8da4w", tmp_path / "x.edge")


def test_tokens_depend_on_those_before_alone(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    check_bits(tiny_checkpoint(FAMILY), "8da4w", tmp_path / "x.edge")


def test_gguf_is_the_same_model(
    tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    kinds = ["linear_attention", "full_attention"] * 2
    folder = tiny_checkpoint(FAMILY, layer_types=kinds, full_attention_interval=2)
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder))
    assert_same_parameters(made, source)


def test_experts_stacked_in_a_folder(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Published folders may hold the matrices of all experts in one tensor, gates before what they
    let through."""
    import shutil

    from fixtures_gguf import stacked
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "stacked"
    shutil.copytree(tiny_checkpoint(FAMILY), folder)
    tensors = stacked(load_file(folder / "model.safetensors"))
    for name in [name for name in tensors if ".experts.gate_proj" in name]:
        up = tensors.pop(name.replace("gate_proj", "up_proj"))
        both = torch.cat((tensors.pop(name), up), dim=1)
        tensors[name.replace("gate_proj.weight", "gate_up_proj")] = both
        down = name.replace("gate_proj", "down_proj")
        tensors[down.removesuffix(".weight")] = tensors.pop(down)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    source, made = open_checkpoint(tiny_checkpoint(FAMILY)), open_checkpoint(folder)
    assert_same_parameters(made, source)
