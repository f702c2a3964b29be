"""Qwen2 and Qwen2.5: biases on queries, keys and values."""

from __future__ import annotations

from torch import nn

from edge_llm.llm.config import ConfigReader, ModelConfig, read_decoder
from edge_llm.llm.family import GGUF_BLOCK, Family
from edge_llm.llm.layers import Attention, CacheShape, prenorm_decoder
from edge_llm.llm.rope import read_rope


def read(reader: ConfigReader) -> ModelConfig:
    """Facts of a Qwen2Config."""
    reader.neutral("use_sliding_window", False)
    return read_decoder(reader, "qwen2", rope=read_rope(reader))


def build(config: ModelConfig, cache: CacheShape) -> nn.Module:
    """The module; parameters are not initialized."""
    return prenorm_decoder(config, cache, lambda: Attention(config, cache, qkv_bias=True))


QWEN2 = Family(
    name="qwen2",
    read=read,
    build=build,
    # without use_sliding_window these two have no effect
    harmless=frozenset({"sliding_window", "max_window_layers"}),
    gguf_architecture="qwen2",
    gguf_layer_names=GGUF_BLOCK
    | {
        "attn_q.bias": "self_attn.q_proj.bias",
        "attn_k.bias": "self_attn.k_proj.bias",
        "attn_v.bias": "self_attn.v_proj.bias",
    },
)
