"""gpt-oss against transformers, from a tiny checkpoint to a program, and the same model in GGUF."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures_checkpoints import YARN_ROPE
from parity import (
    check_at_once,
    check_bits,
    check_forced_routes,
    check_fp32_program,
    check_interleaved,
    check_token_by_token,
)
from stored_tensors import assert_same_model, assert_same_parameters
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from edge_llm.errors import CheckpointError
from edge_llm.export.pipeline import make_program
from edge_llm.export.recipes.file import load_recipe
from edge_llm.llm.checkpoints.open import open_checkpoint

CASES: dict[str, dict[str, Any]] = {
    "usual": {},
    "full-first": {"layer_types": [f"{kind}_attention" for kind in ("full", "full", "sliding")]},
    "plain": {"attention_bias": False, "swiglu_alpha": 1.1, "tie_word_embeddings": True},
}

# The published config of each model in configs/models, for tests/llm/test_model_catalogue.py.
PUBLISHED: dict[str, dict[str, Any]] = {
    "gpt-oss-20b": {
        "architectures": ["GptOssForCausalLM"],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "eos_token_id": 200002,
        "experts_per_token": 4,
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": 2880,
        "initial_context_length": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 2880,
        "layer_types": ["sliding_attention", "full_attention"] * 12,
        "max_position_embeddings": 131072,
        "model_type": "gpt_oss",
        "num_attention_heads": 64,
        "num_experts_per_tok": 4,
        "num_hidden_layers": 24,
        "num_key_value_heads": 8,
        "num_local_experts": 32,
        "output_router_logits": False,
        "pad_token_id": 199999,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "rope_type": "yarn",
            "truncate": False,
        },
        "rope_theta": 150000,
        "router_aux_loss_coef": 0.9,
        "sliding_window": 128,
        "swiglu_limit": 7.0,
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": 201088,
    }
}


@pytest.fixture(params=CASES)
def folder(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("gpt_oss", **CASES[request.param])


@pytest.mark.parametrize("check", [check_at_once, check_token_by_token, check_interleaved])
def test_eager(check: Callable[[Path], None], folder: Path) -> None:
    check(folder)


def test_fp32_program(folder: Path, tmp_path: Path) -> None:
    check_fp32_program(folder, tmp_path / "x.edge")


def test_quantized_program(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    made = check_forced_routes(tiny_checkpoint("gpt_oss"), "8da4w", tmp_path / "x.edge")
    formats = {row["name"]: row["format"] for row in made.report["weights"]}
    assert formats["model.layers.0.mlp.experts.down_proj"] == "i4g32"
    assert formats["model.layers.0.mlp.router.weight"] == "f32"


def test_tokens_depend_on_those_before_alone(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    check_bits(tiny_checkpoint("gpt_oss"), "8da4w", tmp_path / "x.edge")


def test_gguf_is_the_same_model(
    tiny_checkpoint: Callable[..., Path], make_gguf: Callable[..., Path]
) -> None:
    # of YaRN, what a file does not say is as in the published model
    rope = YARN_ROPE | {"truncate": False}
    folder = tiny_checkpoint("gpt_oss", rope_parameters=rope, swiglu_limit=7.0)
    source, made = open_checkpoint(folder), open_checkpoint(make_gguf(folder))
    assert_same_model(made, source)
    windows = [made.config.attention(layer).window for layer in range(3)]
    assert windows == [source.config.attention(layer).window for layer in range(3)] == [19, 0, 19]


def test_a_stack_that_cannot_be_parted(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(tiny_checkpoint("gpt_oss") / "model.safetensors")
    name = "model.layers.1.mlp.experts.gate_up_proj"
    tensors[name] = tensors[name][:, :, :-1].contiguous()
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes(
        (tiny_checkpoint("gpt_oss") / "config.json").read_bytes()
    )
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(tmp_path)
    assert "missing: model.layers.1.mlp.experts.0.gate_proj.weight" in str(error.value)
    assert f"left over: '{name}' [6, 64, 191]" in str(error.value)


def in_mxfp4(folder: Path, plain: Path) -> tuple[Path, Path]:
    """Write a tiny checkpoint whose experts are random MXFP4, as published, and the same in
    floats."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(plain / "model.safetensors")
    floats, packed = dict(tensors), dict(tensors)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        if not name.endswith(("gate_up_proj", "down_proj")) or tensor.ndim != 3:
            continue
        experts, k, n = tensor.shape
        blocks = torch.randint(0, 256, (experts, n, k // 32, 16), generator=generator)
        scales = torch.randint(121, 126, (experts, n, k // 32), generator=generator)
        packed[f"{name}_blocks"] = blocks.to(torch.uint8)
        packed[f"{name}_scales"] = scales.to(torch.uint8)
        del packed[name]
        floats[name] = convert_moe_packed_tensors(
            blocks.to(torch.uint8), scales.to(torch.uint8), dtype=torch.float32
        ).contiguous()
    made = []
    for kind, held in (("mxfp4", packed), ("floats", floats)):
        target = folder / kind
        shutil.copytree(plain, target)
        save_file(held, target / "model.safetensors", metadata={"format": "pt"})
        made.append(target)
    config = json.loads((plain / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router"],
    }
    (made[0] / "config.json").write_text(json.dumps(config))
    return made[0], made[1]


def test_mxfp4_is_taken_over(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    packed, floats = in_mxfp4(tmp_path, tiny_checkpoint("gpt_oss"))
    source, made = open_checkpoint(floats), open_checkpoint(packed)
    assert_same_parameters(made, source)
    check_fp32_program(packed, tmp_path / "fp32.edge", reference_folder=floats)
    recipe = load_recipe("8da4w", ["gate=off"], model=str(packed))
    outcome = make_program(recipe, output=tmp_path / "x.edge")
    rows = {row["name"]: row for row in outcome.report["weights"]}
    for name in ("gate_proj", "up_proj", "down_proj"):
        row = rows[f"model.layers.2.mlp.experts.{name}"]
        assert (row["outcome"], row["format"]) == ("unchanged", "e2m1g32")
    assert outcome.verification["same_numbers"]["kl"] < 1e-3
