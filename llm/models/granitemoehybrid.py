"""The PyTorch module of Granite 4; its facts are in `families/granitemoehybrid.py`."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edge_llm.llm.families.granitemoehybrid import GraniteMoeHybridConfig
from edge_llm.llm.models.experts import Experts, route
from edge_llm.llm.models.layers import Attention, CacheShape, RMSNorm, decoder
from edge_llm.llm.models.state_space import Mamba2


class SharedMLP(nn.Module):
    """output(silu(gate) * up), gate and up being the halves of one product."""

    def __init__(self, dim: int, ffn: int) -> None:
        super().__init__()
        self.sizes = [ffn, ffn]
        self.input_linear = nn.Linear(dim, 2 * ffn, bias=False)
        self.output_linear = nn.Linear(ffn, dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.input_linear(x).split(self.sizes, dim=-1)
        y: torch.Tensor = self.output_linear(functional.silu(gate) * up)
        return y


class RoutedExperts(nn.Module):
    """A router, and experts with the shares that a softmax gives to the chosen alone."""

    def __init__(self, config: GraniteMoeHybridConfig) -> None:
        super().__init__()
        dim, experts = config.hidden_size, config.num_local_experts
        self.chosen = config.num_experts_per_tok
        self.router = nn.ModuleDict({"layer": nn.Linear(dim, experts, bias=False)})
        self.experts = Experts(
            dim, config.expert_intermediate_size, experts=experts, chosen=self.chosen
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shares = route(
            self.router["layer"](x),
            None,
            chosen=self.chosen,
            scoring="softmax of the chosen",
            normalize=False,
            eps=0.0,
            scale=1.0,
        )
        out: torch.Tensor = self.experts(x, shares)
        return out


class HybridBlock(nn.Module):
    """Attention or a state space, then an MLP with the experts beside it, if any: each of the two
    is normalized before and added to the stream after, times the residual multiplier."""

    def __init__(self, config: GraniteMoeHybridConfig, layer: int, cache: CacheShape) -> None:
        super().__init__()
        dim, eps = config.hidden_size, config.rms_norm_eps
        attention = config.attention(layer)
        self.residual_scale = config.residual_multiplier
        self.input_layernorm = RMSNorm(dim, eps)
        if attention is None:
            self.mamba = Mamba2(
                dim,
                config.state_space,
                cache,
                bias=config.mamba_proj_bias,
                conv_bias=config.mamba_conv_bias,
                eps=eps,
            )
        else:
            self.self_attn = Attention(dim, attention, cache, bias=config.attention_bias)
        self.folds = attention is None
        self.post_attention_layernorm = RMSNorm(dim, eps)
        self.block_sparse_moe = RoutedExperts(config) if config.has_experts else None
        self.shared_mlp = SharedMLP(dim, config.intermediate_size)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor | None,
        sin: torch.Tensor | None,
    ) -> torch.Tensor:
        mixer = self.mamba if self.folds else self.self_attn
        y = mixer(self.input_layernorm(x), positions, sequences, cos, sin)
        x = x + y * self.residual_scale
        inner = self.post_attention_layernorm(x)
        y = self.shared_mlp(inner)
        if self.block_sparse_moe is not None:
            y = self.block_sparse_moe(inner) + y
        out: torch.Tensor = x + y * self.residual_scale
        return out


def build(config: GraniteMoeHybridConfig, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    return decoder(
        config,
        cache,
        lambda layer: HybridBlock(config, layer, cache),
        embedding_scale=config.embedding_multiplier,
        logits_scale=1.0 / config.logits_scaling,
    )
