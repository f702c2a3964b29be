"""Qwen2 and Qwen2.5: biases on queries, keys and values."""

from __future__ import annotations

from torch import nn

from edge_llm.llm.config import ConfigReader, ModelConfig
from edge_llm.llm.decoder import optional_window, read_decoder
from edge_llm.llm.family import GGUF_BLOCK, Family
from edge_llm.llm.layers import Attention, CacheShape, prenorm_decoder
from edge_llm.llm.rope import read_rope


def read(reader: ConfigReader) -> ModelConfig:
    """Facts of a Qwen2Config."""
    reader.neutral("use_mrope", False)  # the vision models' rotation
    window, slides = optional_window(reader)
    return read_decoder(reader, "qwen2", rope=read_rope(reader), window=window, slides=slides)


def build(config: ModelConfig, cache: CacheShape) -> nn.Module:
    """The module; parameters are not initialized."""
    return prenorm_decoder(
        config, cache, lambda layer: Attention(config, cache, layer, qkv_bias=True)
    )


QWEN2 = Family(
    name="qwen2",
    read=read,
    build=build,
    gguf_architecture="qwen2",
    gguf_layer_names=GGUF_BLOCK
    | {
        "attn_q.bias": "self_attn.q_proj.bias",
        "attn_k.bias": "self_attn.k_proj.bias",
        "attn_v.bias": "self_attn.v_proj.bias",
    },
)
