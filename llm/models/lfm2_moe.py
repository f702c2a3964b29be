"""The PyTorch module of LFM2 with experts; its facts are in `families/lfm2_moe.py`."""

from __future__ import annotations

import torch
from torch import nn

from edge_llm.llm.families.lfm2_moe import Lfm2MoeConfig
from edge_llm.llm.models.experts import Experts, route
from edge_llm.llm.models.layers import CacheShape, decoder
from edge_llm.llm.models.lfm2 import Lfm2Block, Lfm2MLP

EPS = 1e-6  # of the sum that the shares are divided by


class Lfm2SparseMLP(nn.Module):
    """A router by sigmoids, with a bias for the choice alone, and its experts."""

    def __init__(self, config: Lfm2MoeConfig) -> None:
        super().__init__()
        dim, experts = config.hidden_size, config.num_experts
        self.chosen, self.normalize = config.num_experts_per_tok, config.norm_topk_prob
        self.scale = config.routed_scaling_factor
        self.gate = nn.Linear(dim, experts, bias=False)
        self.expert_bias = nn.Parameter(torch.empty(experts)) if config.use_expert_bias else None
        self.experts = Experts(
            dim,
            config.moe_intermediate_size,
            experts=experts,
            chosen=self.chosen,
            names=("w1", "w3", "w2"),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shares = route(
            self.gate(x),
            self.expert_bias,
            chosen=self.chosen,
            scoring="sigmoid",
            normalize=self.normalize,
            eps=EPS,
            scale=self.scale,
        )
        out: torch.Tensor = self.experts(x, shares)
        return out


def build(config: Lfm2MoeConfig, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""

    def mlp(layer: int) -> nn.Module:
        if layer < config.num_dense_layers:
            return Lfm2MLP(config.hidden_size, config.intermediate_size)
        return Lfm2SparseMLP(config)

    return decoder(
        config,
        cache,
        lambda layer: Lfm2Block(config, layer, cache, mlp(layer)),
        norm_name="embedding_norm",
    )
