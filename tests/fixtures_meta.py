"""Checkpoints in Meta's layout made from Hugging Face checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fixtures_gguf import interleave

MetaFactory = Callable[..., Path]
QuantizedFactory = Callable[..., "Written"]

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


@dataclass(frozen=True)
class Written:
    """A quantized checkpoint as it was written: its folder, and its tensors by Meta's names."""

    folder: Path
    tensors: dict[str, Any]

    @property
    def params(self) -> dict[str, Any]:
        """The values of params.json."""
        values: dict[str, Any] = json.loads((self.folder / "params.json").read_text())
        return values


@pytest.fixture
def make_quantized_meta(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> QuantizedFactory:
    """``make_quantized_meta(name="meta", sizes={}, **options) -> Written``: a folder of that name,
    with a small random Llama that `write_quantized_meta` writes, and its tokenizer."""

    def make(*, name: str = "meta", sizes: dict[str, Any] | None = None, **options: Any) -> Written:
        plain = {
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
            "intermediate_size": 128,
        }
        source = tiny_checkpoint("llama", **{**plain, **(sizes or {})})
        folder = tmp_path / name
        folder.mkdir()
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(source / file, folder)
        return write_quantized_meta(source, folder, **options)

    return make


def write_quantized_meta(
    source: Path,
    folder: Path,
    *,
    lora: dict[str, Any] | None = None,
    spinquant: bool = False,
    group: int = 32,
    halves: bool = True,
    edit: Callable[[dict[str, Any]], None] | None = None,
    **params: Any,
) -> Written:
    """Write a Hugging Face checkpoint in Meta's int4 layout. ``lora`` are its ``lora_args``; with
    ``halves`` scales are numbers that float16 holds, and no code is -128; ``edit(tensors)`` may
    change what is stored, ``params`` what params.json says."""
    import torch

    config = json.loads((source / "config.json").read_text())
    tensors: dict[str, Any] = {}
    generator = torch.Generator().manual_seed(1)
    for key, (tensor, _) in meta_tensors(source, config, 0).items():
        module = key.removesuffix(".weight")
        if tensor.dim() == 1:
            tensors[key] = tensor.bfloat16()
            continue
        whole = module in ("tok_embeddings", "output")
        q, scales = quantized(tensor, 0 if whole else group, halves)
        tensors |= {key: q, f"{module}.scales": scales}
        if lora is not None and not whole:
            n, k = tensor.shape
            for part, shape in (("A", (lora["rank"], k)), ("B", (n, lora["rank"]))):
                values = torch.randn(shape, generator=generator) * 0.05
                tensors[f"{module}.adaptor.{part}.weight"] = values.bfloat16()
    if edit is not None:
        edit(tensors)
    torch.save(tensors, folder / "consolidated.00.pth")
    arguments = {
        "scheme": "int4_weight_int8_dynamic_activation",
        "group_size": group,
        **({"spinquant": True} if spinquant else {}),
    }
    values = meta_params(config) | {"quantization_args": arguments}
    values |= ({} if lora is None else {"lora_args": lora}) | params
    (folder / "params.json").write_text(json.dumps(values))
    return Written(folder, tensors)


def quantized(weight: Any, group: int, halves: bool) -> tuple[Any, Any]:
    """int4 with a scale for ``group`` columns, or int8 with one a row (0), as torchao rounds."""
    import torch

    n, k = weight.shape
    low, high = (-8, 7) if group else (-128, 127)
    parts = weight.reshape(n, k // (group or k), -1)
    scales = parts.abs().amax(dim=2) / ((high - low) / 2)
    if halves and group:
        scales = scales.half().float()
    q = (parts / scales[:, :, None]).round().clamp(low + (halves and not group), high)
    return q.reshape(n, k).to(torch.int8), scales


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
