"""The PyTorch module of OLMo 3, which is OLMo 2's; its facts are in `families/olmo3.py`."""

from __future__ import annotations

from torch import nn

from edge_llm.llm.families.olmo3 import Olmo3Config
from edge_llm.llm.models.layers import Attention, CacheShape, GatedMLP, decoder
from edge_llm.llm.models.olmo2 import HeadsNorm, PostNormBlock


def build(config: Olmo3Config, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    dim, eps = config.hidden_size, config.rms_norm_eps

    def block(layer: int) -> nn.Module:
        attention = Attention(
            dim,
            config.attention(layer),
            cache,
            bias=config.attention_bias,
            q_norm=HeadsNorm(config.num_attention_heads, config.head_dim, eps),
            k_norm=HeadsNorm(config.num_key_value_heads, config.head_dim, eps),
        )
        mlp = GatedMLP(dim, config.intermediate_size)
        return PostNormBlock(dim, eps, attention=attention, mlp=mlp)

    return decoder(config, cache, block)
