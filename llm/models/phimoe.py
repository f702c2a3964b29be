"""The PyTorch module of Phi-3.5-MoE; its facts are in `families/phimoe.py`."""

from __future__ import annotations

import torch
from torch import nn

from edge_llm.llm.families.phimoe import PhimoeConfig
from edge_llm.llm.models.experts import Experts, route
from edge_llm.llm.models.layers import Attention, CacheShape, LayerNorm, decoder


class PhimoeSparseMLP(nn.Module):
    """A router, called ``gate`` as in checkpoints, and its experts."""

    def __init__(self, config: PhimoeConfig) -> None:
        super().__init__()
        dim, experts = config.hidden_size, config.num_local_experts
        self.chosen = config.num_experts_per_tok
        self.threshold = 2 * config.router_jitter_noise
        self.gate = nn.Linear(dim, experts, bias=False)
        self.experts = Experts(
            dim,
            config.intermediate_size,
            experts=experts,
            chosen=self.chosen,
            names=("w1", "w3", "w2"),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shares = route(
            self.gate(x),
            None,
            chosen=self.chosen,
            scoring="softmax of those near",
            normalize=False,
            eps=0.0,
            scale=1.0,
            threshold=self.threshold,
        )
        out: torch.Tensor = self.experts(x, shares)
        return out


class PhimoeBlock(nn.Module):
    """Attention and experts, each normalized before and added to the stream after."""

    def __init__(self, config: PhimoeConfig, layer: int, cache: CacheShape) -> None:
        super().__init__()
        dim, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = LayerNorm(dim, eps)
        self.self_attn = Attention(dim, config.attention(layer), cache, bias=config.attention_bias)
        self.post_attention_layernorm = LayerNorm(dim, eps)
        self.block_sparse_moe = PhimoeSparseMLP(config)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor | None,
        sin: torch.Tensor | None,
    ) -> torch.Tensor:
        x = x + self.self_attn(self.input_layernorm(x), positions, sequences, cos, sin)
        out: torch.Tensor = x + self.block_sparse_moe(self.post_attention_layernorm(x))
        return out


def build(config: PhimoeConfig, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    return decoder(
        config,
        cache,
        lambda layer: PhimoeBlock(config, layer, cache),
        norm=LayerNorm(config.hidden_size, config.rms_norm_eps),
        head_bias=config.lm_head_bias,
    )
