"""A Hugging Face folder of a Llama, Qwen3, Phi-3 or Gemma 3 model as a float16 GGUF without
a tokenizer.

python write_gguf.py FOLDER OUT.gguf
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
SANDWICH = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def main() -> None:
    folder, path = Path(sys.argv[1]), Path(sys.argv[2])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    family = config["model_type"]
    heads = config["num_attention_heads"]
    kv_heads = config["num_key_value_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    rope = config.get("rope_parameters") or {"rope_type": "default"} | config
    rope = rope.get("full_attention", rope)
    gemma = family == "gemma3_text"

    writer = gguf.GGUFWriter(path, "gemma3" if gemma else family, use_temp_file=False)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    rotated = int(head_dim * rope.get("partial_rotary_factor", 1.0))
    writer.add_rope_dimension_count(rotated)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    if gemma:
        writer.add_sliding_window(config["sliding_window"])
    if family == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config["original_max_position_embeddings"])
        writer.add_sliding_window(0)
    for name, factors in rope_factors(rope, rotated).items():
        writer.add_tensor(name, np.array(factors, np.float32))

    for name, tensor in tensors(folder):
        stem, kind = name.rsplit(".", 1)
        if family == "llama" and stem.endswith((".q_proj", ".k_proj")):
            tensor = interleaved(tensor, heads if stem.endswith("q_proj") else kv_heads)
        if gemma and tensor.ndim == 1:  # its norms are stored less 1
            tensor = tensor + 1
        dtype = np.float32 if tensor.ndim == 1 else np.float16
        name = gguf_name(stem, LAYER | SANDWICH if gemma else LAYER)
        writer.add_tensor(f"{name}.{kind}", tensor.astype(dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors(folder: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (it is no mapping)
                yield name, opened.get_tensor(name).to(torch.float32).numpy()


def gguf_name(stem: str, names: Mapping[str, str]) -> str:
    if stem in OUTER:
        return OUTER[stem]
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{names[rest]}"


def interleaved(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of each head from halves (i, i + d / 2) to neighbours (2i, 2i + 1), which llama.cpp's
    Llama rotates."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def rope_factors(rope: dict[str, Any], rotated: int) -> dict[str, list[float]]:
    """Return what llama.cpp divides the rotary frequencies by."""
    if rope["rope_type"] == "longrope":
        return {f"rope_factors_{kind}.weight": rope[f"{kind}_factor"] for kind in ("long", "short")}
    if rope["rope_type"] != "llama3":
        return {}
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    factors = []
    for i in range(0, rotated, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / rotated)
        turns = rope["original_max_position_embeddings"] / wavelength
        smooth = min(max((turns - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return {"rope_freqs.weight": factors}


if __name__ == "__main__":
    main()
