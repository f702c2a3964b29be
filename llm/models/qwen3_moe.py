"""The PyTorch module of Qwen3 with experts; its facts are in `families/qwen3_moe.py`."""

from __future__ import annotations

from torch import nn

from edge_llm.llm.families.qwen3_moe import Qwen3MoeConfig
from edge_llm.llm.models.experts import SparseMLP
from edge_llm.llm.models.layers import (
    Attention,
    CacheShape,
    GatedMLP,
    RMSNorm,
    prenorm_decoder,
)


def build(config: Qwen3MoeConfig, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    dim = config.hidden_size

    def attention(layer: int) -> nn.Module:
        return Attention(
            dim,
            config.attention(layer),
            cache,
            bias=config.attention_bias,
            q_norm=RMSNorm(config.head_dim, config.rms_norm_eps),
            k_norm=RMSNorm(config.head_dim, config.rms_norm_eps),
        )

    def mlp(layer: int) -> nn.Module:
        if layer in config.mlp_only_layers:
            return GatedMLP(dim, config.intermediate_size)
        return SparseMLP(
            dim,
            config.moe_intermediate_size,
            experts=config.num_experts,
            chosen=config.num_experts_per_tok,
            normalize=config.norm_topk_prob,
        )

    return prenorm_decoder(config, cache, attention, mlp)
