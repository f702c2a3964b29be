"""The PyTorch module of Gemma 2; its facts are in `families/gemma2.py`."""

from __future__ import annotations

from torch import nn

from edge_llm.llm.families.gemma2 import Gemma2Config
from edge_llm.llm.models.layers import (
    Attention,
    CacheShape,
    GatedMLP,
    SandwichBlock,
    decoder,
    gelu_tanh,
)


def build(config: Gemma2Config, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    dim, eps = config.hidden_size, config.rms_norm_eps

    def block(layer: int) -> nn.Module:
        attention = Attention(
            dim,
            config.attention(layer),
            cache,
            bias=config.attention_bias,
        )
        mlp = GatedMLP(dim, config.intermediate_size, activation=gelu_tanh)
        return SandwichBlock(dim, eps, attention=attention, mlp=mlp)

    return decoder(
        config,
        cache,
        block,
        embedding_scale=dim**0.5,
        logits_cap=config.final_logit_softcapping,
    )
