"""GGUF files made from Hugging Face checkpoints, as llama.cpp's converter lays them out."""

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


def interleave(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """The row order that llama.cpp's converter gives to q and k of the llama architecture."""
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
