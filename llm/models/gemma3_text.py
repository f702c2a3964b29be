"""The PyTorch module of Gemma 3; its facts are in `families/gemma3_text.py`."""

from __future__ import annotations

from torch import nn

from edge_llm.llm.families.gemma3_text import Gemma3TextConfig
from edge_llm.llm.models.layers import (
    Attention,
    CacheShape,
    GatedMLP,
    RMSNorm,
    SandwichBlock,
    decoder,
    gelu_tanh,
)


def build(config: Gemma3TextConfig, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    dim, eps = config.hidden_size, config.rms_norm_eps

    def block(layer: int) -> nn.Module:
        attention = Attention(
            dim,
            config.attention(layer),
            cache,
            bias=config.attention_bias,
            q_norm=RMSNorm(config.head_dim, eps),
            k_norm=RMSNorm(config.head_dim, eps),
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
