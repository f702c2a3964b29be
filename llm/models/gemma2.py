"""The PyTorch module of Gemma 2; its facts are in `families/gemma2.py`."""

from __future__ import annotations

from torch import nn

from edge_llm.llm.families.gemma2 import Gemma2Config
from edge_llm.llm.models.layers import (
    Attention,
    CacheShape,
    GatedMLP,
    gelu_tanh,
    sandwich_decoder,
)


def build(config: Gemma2Config, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    dim, ffn = config.hidden_size, config.intermediate_size

    return sandwich_decoder(
        config,
        cache,
        lambda layer: Attention(dim, config.attention(layer), cache, bias=config.attention_bias),
        lambda layer: GatedMLP(dim, ffn, activation=gelu_tanh),
        embedding_scale=dim**0.5,
        logits_cap=config.final_logit_softcapping,
    )
