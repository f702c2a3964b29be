"""GGUF files and Meta's folders made from Hugging Face checkpoints, as the converter of llama.cpp
and Meta's own code lay them out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

GGUFFactory = Callable[..., Path]
MetaFactory = Callable[..., Path]

# Hugging Face name within a layer -> GGUF name.
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTER_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def gguf_name(name: str) -> str:
    module, _, kind = name.rpartition(".")
    if module in OUTER_NAMES:
        return f"{OUTER_NAMES[module]}.{kind}"
    _, _, layer, inner = module.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[inner]}.{kind}"


def interleave(rows: Any, heads: int) -> Any:
    """Rows of an array or a tensor in the order that Meta gives to q and k, and llama.cpp's
    converter to those of the llama architecture."""
    split = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return split.swapaxes(1, 2).reshape(rows.shape)


@pytest.fixture
def make_gguf(tmp_path: Path) -> GGUFFactory:
    """``make_gguf(folder, quant="F32", name="tiny", edit=None) -> file``: matrices in ``quant``,
    vectors in F32. ``edit(writer)`` runs last and may add metadata."""

    def make(
        folder: Path,
        quant: str = "F32",
        *,
        name: str = "tiny",
        edit: Callable[[gguf.GGUFWriter], None] | None = None,
    ) -> Path:
        config = json.loads((folder / "config.json").read_text())
        path = tmp_path / f"{name}.gguf"
        writer = gguf.GGUFWriter(path, config["model_type"])
        add_metadata(writer, config)
        add_tokenizer(writer, folder)
        add_tensors(writer, folder, config, getattr(gguf.GGMLQuantizationType, quant))
        if edit is not None:
            edit(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return make


def add_metadata(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    if config["model_type"] == "qwen3":
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    if config["model_type"] == "llama":
        writer.add_vocab_size(config["vocab_size"])
        writer.add_rope_dimension_count(config["head_dim"])
    writer.add_file_type(0)
    writer.add_license("apache-2.0")


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    model = json.loads((folder / "tokenizer.json").read_text())
    tokens = [token for token, _ in sorted(model["model"]["vocab"].items(), key=lambda kv: kv[1])]
    specials = {token["content"] for token in model["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in specials else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in model["model"]["merges"]])
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    writer.add_chat_template(settings["chat_template"])


def add_tensors(
    writer: gguf.GGUFWriter,
    folder: Path,
    config: dict[str, Any],
    quant: gguf.GGMLQuantizationType,
) -> None:
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, tensor in load_file(folder / "model.safetensors").items():
        values = tensor.to(torch.float32).numpy()
        part = name.split(".")[-2]
        if config["model_type"] == "llama" and part in heads:
            values = interleave(values, heads[part])
        values = np.ascontiguousarray(values)
        if values.ndim == 1 or quant == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(gguf_name(name), values)
        else:
            data = gguf.quants.quantize(values, quant)
            writer.add_tensor(gguf_name(name), data, raw_dtype=quant)
    if config["rope_parameters"].get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(config))


def llama3_divisors(config: dict[str, Any]) -> NDArray[np.float32]:
    """What the converter stores for llama3 scaling: divisors of the base frequencies."""
    rope, dim = config["rope_parameters"], config["head_dim"]
    base = rope["rope_theta"] ** -(np.arange(0, dim, 2, dtype=np.float64) / dim)
    wavelength = 2 * np.pi / base
    original = rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = (original / wavelength - low) / (high - low)
    ramp = 1 / ((1 - smooth) / rope["factor"] + smooth)
    divisors = np.where(
        wavelength < original / high,
        1.0,
        np.where(wavelength > original / low, rope["factor"], ramp),
    )
    return divisors.astype(np.float32)


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
) -> dict[str, tuple[torch.Tensor, int | None]]:
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    outer: dict[str, tuple[str, int | None]] = {
        "model.embed_tokens": ("tok_embeddings", embedding_axis),
        "model.norm": ("norm", None),
        "lm_head": ("output", 0),
    }
    result: dict[str, tuple[torch.Tensor, int | None]] = {}
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
