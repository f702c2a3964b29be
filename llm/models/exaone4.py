"""The PyTorch module of EXAONE 4; its facts are in `families/exaone4.py`."""

from __future__ import annotations

from torch import nn

from edge_llm.llm.families.exaone4 import Exaone4Config
from edge_llm.llm.models.layers import Attention, CacheShape, GatedMLP, RMSNorm, decoder
from edge_llm.llm.models.olmo2 import PostNormBlock


def build(config: Exaone4Config, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    dim, eps = config.hidden_size, config.rms_norm_eps

    def block(layer: int) -> nn.Module:
        attention = Attention(
            dim,
            config.attention(layer),
            cache,
            q_norm=RMSNorm(config.head_dim, eps),
            k_norm=RMSNorm(config.head_dim, eps),
        )
        mlp = GatedMLP(dim, config.intermediate_size)
        return PostNormBlock(dim, eps, attention=attention, mlp=mlp)

    return decoder(config, cache, block)
