"""The PyTorch module of Ministral 3; its facts are in `families/ministral3.py`."""

from __future__ import annotations

from torch import nn

from edge_llm.llm.families.ministral3 import Ministral3Config
from edge_llm.llm.models.layers import Attention, CacheShape, GatedMLP, prenorm_decoder


def build(config: Ministral3Config, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    dim, ffn = config.hidden_size, config.intermediate_size
    return prenorm_decoder(
        config,
        cache,
        attention=lambda layer: Attention(dim, config.attention(layer), cache),
        mlp=lambda layer: GatedMLP(dim, ffn),
    )
