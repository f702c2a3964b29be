"""The PyTorch module of Qwen2.5; its facts are in `families/qwen2.py`."""

from __future__ import annotations

from torch import nn

from edge_llm.llm.families.qwen2 import Qwen2Config
from edge_llm.llm.models.layers import Attention, CacheShape, GatedMLP, prenorm_decoder


def build(config: Qwen2Config, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    dim, ffn = config.hidden_size, config.intermediate_size
    return prenorm_decoder(
        config,
        cache,
        attention=lambda layer: Attention(dim, config.attention(layer), cache, qkv_bias=True),
        mlp=lambda layer: GatedMLP(dim, ffn),
    )
