"""The PyTorch module of OLMoE; its facts are in `families/olmoe.py`."""

from __future__ import annotations

from torch import nn

from edge_llm.llm.families.olmoe import OlmoeConfig
from edge_llm.llm.models.experts import SparseMLP
from edge_llm.llm.models.layers import Attention, CacheShape, prenorm_decoder
from edge_llm.llm.models.olmo2 import HeadsNorm


def build(config: OlmoeConfig, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    dim, eps = config.hidden_size, config.rms_norm_eps

    def attention(layer: int) -> nn.Module:
        return Attention(
            dim,
            config.attention(layer),
            cache,
            bias=config.attention_bias,
            q_norm=HeadsNorm(config.num_attention_heads, config.head_dim, eps),
            k_norm=HeadsNorm(config.num_key_value_heads, config.head_dim, eps),
        )

    def mlp(layer: int) -> nn.Module:
        return SparseMLP(
            dim,
            config.intermediate_size,
            experts=config.num_experts,
            chosen=config.num_experts_per_tok,
            normalize=config.norm_topk_prob,
        )

    return prenorm_decoder(config, cache, attention, mlp)
