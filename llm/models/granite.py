"""The PyTorch module of Granite; its facts are in `families/granite.py`."""

from __future__ import annotations

from torch import nn

from edge_llm.llm.families.granite import GraniteConfig
from edge_llm.llm.models.layers import Attention, CacheShape, GatedMLP, prenorm_decoder


def build(config: GraniteConfig, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    dim, ffn = config.hidden_size, config.intermediate_size
    return prenorm_decoder(
        config,
        cache,
        attention=lambda layer: Attention(
            dim, config.attention(layer), cache, bias=config.attention_bias
        ),
        mlp=lambda layer: GatedMLP(dim, ffn, bias=config.mlp_bias),
        embedding_scale=config.embedding_multiplier,
        residual_scale=config.residual_multiplier,
        logits_scale=1.0 / config.logits_scaling,
    )
