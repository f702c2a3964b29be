"""The PyTorch module of gpt-oss; its facts are in `families/gpt_oss.py`."""

from __future__ import annotations

import torch
from torch import nn

from edge_llm.llm.families.gpt_oss import GptOssConfig
from edge_llm.llm.models.experts import Experts, route
from edge_llm.llm.models.layers import Attention, CacheShape, prenorm_decoder


class RoutedMLP(nn.Module):
    """A router, and experts with the shares that a softmax gives to the chosen alone."""

    def __init__(self, config: GptOssConfig) -> None:
        super().__init__()
        self.chosen = config.num_experts_per_tok
        self.router = nn.Linear(config.hidden_size, config.num_local_experts)
        self.experts = Experts(
            config.hidden_size,
            config.intermediate_size,
            experts=config.num_local_experts,
            chosen=config.num_experts_per_tok,
            bias=True,
            activation="clamped",
            alpha=config.swiglu_alpha,
            limit=config.swiglu_limit,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shares = route(
            self.router(x),
            None,
            chosen=self.chosen,
            scoring="softmax of the chosen",
            normalize=False,
            eps=0.0,
            scale=1.0,
        )
        out: torch.Tensor = self.experts(x, shares)
        return out


def build(config: GptOssConfig, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""

    def attention(layer: int) -> nn.Module:
        shape = config.attention(layer)
        return Attention(config.hidden_size, shape, cache, bias=config.attention_bias, sinks=True)

    return prenorm_decoder(config, cache, attention, lambda layer: RoutedMLP(config))
