"""The PyTorch module of Gemma 3; its facts are in `families/gemma3_text.py`."""

from __future__ import annotations

from torch import nn

from edge_llm.llm.families.gemma3_text import Gemma3TextConfig
from edge_llm.llm.models.layers import (
    Attention,
    CacheShape,
    GatedMLP,
    RMSNorm,
    gelu_tanh,
    sandwich_decoder,
)


def build(config: Gemma3TextConfig, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    dim, ffn = config.hidden_size, config.intermediate_size

    def attention(layer: int) -> nn.Module:
        return Attention(
            dim,
            config.attention(layer),
            cache,
            bias=config.attention_bias,
            q_norm=RMSNorm(config.head_dim, config.rms_norm_eps),
            k_norm=RMSNorm(config.head_dim, config.rms_norm_eps),
        )

    return sandwich_decoder(
        config,
        cache,
        attention,
        lambda layer: GatedMLP(dim, ffn, activation=gelu_tanh),
        embedding_scale=dim**0.5,
        logits_cap=config.final_logit_softcapping,
    )
