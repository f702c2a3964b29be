"""The PyTorch module of Granite 4 without experts and state spaces; its facts are in
`families/granitemoehybrid.py`."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edge_llm.llm.families.granitemoehybrid import GraniteMoeHybridConfig
from edge_llm.llm.models.layers import Attention, CacheShape, RMSNorm, decoder


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


class SharedBlock(nn.Module):
    """Attention and MLP, each normalized before and added to the stream after, times
    ``residual_scale``."""

    def __init__(
        self,
        dim: int,
        eps: float,
        *,
        attention: nn.Module,
        mlp: nn.Module,
        residual_scale: float,
    ) -> None:
        super().__init__()
        self.residual_scale = residual_scale
        self.input_layernorm = RMSNorm(dim, eps)
        self.self_attn = attention
        self.post_attention_layernorm = RMSNorm(dim, eps)
        self.shared_mlp = mlp

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor | None,
        sin: torch.Tensor | None,
    ) -> torch.Tensor:
        y = self.self_attn(self.input_layernorm(x), positions, sequences, cos, sin)
        x = x + y * self.residual_scale
        out: torch.Tensor = (
            x + self.shared_mlp(self.post_attention_layernorm(x)) * self.residual_scale
        )
        return out


def build(config: GraniteMoeHybridConfig, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    dim, eps = config.hidden_size, config.rms_norm_eps

    def block(layer: int) -> nn.Module:
        return SharedBlock(
            dim,
            eps,
            attention=Attention(dim, config.attention(layer), cache, bias=config.attention_bias),
            mlp=SharedMLP(dim, config.intermediate_size),
            residual_scale=config.residual_multiplier,
        )

    return decoder(
        config,
        cache,
        block,
        embedding_scale=config.embedding_multiplier,
        logits_scale=1.0 / config.logits_scaling,
    )
