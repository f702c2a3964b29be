"""Checkpoints in Meta's layout made from Hugging Face checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures_gguf import interleave

MetaFactory = Callable[..., Path]

# Hugging Face name within a layer -> (Meta's name, the dimension along which shards are parts).
META_LAYER_NAMES = {
    "input_layernorm": ("attention_norm", None),
    "self_attn.q_proj": ("attention.wq", 0),
    "self_attn.k_proj": ("attention.wk", 0),
    "self_attn.v_proj": ("attention.wv", 0),
    "self_attn.o_proj": ("attention.wo", 1),
    "post_attention_layernorm": ("ffn_norm", None),
    "mlp.gate_proj": ("feed_forward.w1", 0),
    "mlp.up_proj": ("feed_forward.w3", 0),
    "mlp.down_proj": ("feed_forward.w2", 1),
}


@pytest.fixture
def make_meta(tmp_path: Path) -> MetaFactory:
    """``make_meta(folder, shards=1, embedding_axis=0, edit=None, **params) -> folder`` with
    consolidated.NN.pth and params.json; ``edit(tensors)`` may change what is stored."""

    def make(
        folder: Path,
        shards: int = 1,
        *,
        embedding_axis: int = 0,
        edit: Callable[[dict[str, Any]], None] | None = None,
        **params: Any,
    ) -> Path:
        import torch

        config = json.loads((folder / "config.json").read_text())
        tensors = meta_tensors(folder, config, embedding_axis)
        target = tmp_path / "meta"
        target.mkdir()
        for index in range(shards):
            part = {
                name: tensor if axis is None else tensor.chunk(shards, axis)[index].clone()
                for name, (tensor, axis) in tensors.items()
            }
            if edit is not None:
                edit(part)
            torch.save(part, target / f"consolidated.{index:02d}.pth")
        values = meta_params(config) | params
        (target / "params.json").write_text(json.dumps(values))
        return target

    return make


def meta_params(config: dict[str, Any]) -> dict[str, Any]:
    rope = config["rope_parameters"]
    params = {
        "dim": config["hidden_size"],
        "n_layers": config["num_hidden_layers"],
        "n_heads": config["num_attention_heads"],
        "n_kv_heads": config["num_key_value_heads"],
        "vocab_size": config["vocab_size"],
        "norm_eps": config["rms_norm_eps"],
        "rope_theta": rope["rope_theta"],
        "max_seq_len": config["max_position_embeddings"],
    }
    if rope["rope_type"] == "llama3":
        params |= {"use_scaled_rope": True, "rope_scaling_factor": rope["factor"]}
    return params


def meta_tensors(
    folder: Path, config: dict[str, Any], embedding_axis: int
) -> dict[str, tuple[Any, int | None]]:
    from safetensors.torch import load_file

    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    outer: dict[str, tuple[str, int | None]] = {
        "model.embed_tokens": ("tok_embeddings", embedding_axis),
        "model.norm": ("norm", None),
        "lm_head": ("output", 0),
    }
    result: dict[str, tuple[Any, int | None]] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        module = name.removesuffix(".weight")
        if module in outer:
            new, axis = outer[module]
        else:
            _, _, layer, inner = module.split(".", 3)
            within, axis = META_LAYER_NAMES[inner]
            new = f"layers.{layer}.{within}"
        part = module.rpartition(".")[2]
        if part in heads:
            tensor = interleave(tensor, heads[part])
        result[f"{new}.weight"] = tensor, axis
    return result
