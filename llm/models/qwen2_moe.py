"""The PyTorch module of Qwen2 with experts; its facts are in `families/qwen2_moe.py`."""

from __future__ import annotations

from torch import nn

from edge_llm.llm.families.qwen2_moe import Qwen2MoeConfig
from edge_llm.llm.models.experts import SparseMLP
from edge_llm.llm.models.layers import (
    Attention,
    CacheShape,
    GatedMLP,
    prenorm_decoder,
)


def build(config: Qwen2MoeConfig, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    dim = config.hidden_size

    def attention(layer: int) -> nn.Module:
        return Attention(
            dim,
            config.attention(layer),
            cache,
            qkv_bias=config.qkv_bias,
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
            shared_ffn=config.shared_expert_intermediate_size,
        )

    return prenorm_decoder(config, cache, attention, mlp)
