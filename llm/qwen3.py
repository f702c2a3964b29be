"""Qwen3 (dense): every query and key head is normalized before the rotation; explicit head_dim."""

from __future__ import annotations

from torch import nn

from edge_llm.llm.config import ConfigReader, ModelConfig
from edge_llm.llm.decoder import optional_window, read_decoder
from edge_llm.llm.family import GGUF_BLOCK, Family
from edge_llm.llm.layers import Attention, CacheShape, RMSNorm, prenorm_decoder
from edge_llm.llm.rope import read_rope

DEFAULT_HEAD_DIM = 128


def read(reader: ConfigReader) -> ModelConfig:
    """Facts of a Qwen3Config."""
    window, slides = optional_window(reader)
    return read_decoder(
        reader,
        "qwen3",
        rope=read_rope(reader),
        head_dim=DEFAULT_HEAD_DIM,
        biases=("attention_bias",),
        window=window,
        slides=slides,
    )


def build(config: ModelConfig, cache: CacheShape) -> nn.Module:
    """The module; parameters are not initialized."""
    return prenorm_decoder(
        config,
        cache,
        lambda layer: Attention(
            config,
            cache,
            layer,
            q_norm=RMSNorm(config.head_dim, config.norm_eps),
            k_norm=RMSNorm(config.head_dim, config.norm_eps),
        ),
    )


QWEN3 = Family(
    name="qwen3",
    read=read,
    build=build,
    gguf_architecture="qwen3",
    gguf_layer_names=GGUF_BLOCK
    | {
        "attn_q_norm.weight": "self_attn.q_norm.weight",
        "attn_k_norm.weight": "self_attn.k_norm.weight",
    },
)
