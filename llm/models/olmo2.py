"""The PyTorch module of OLMo 2; its facts are in `families/olmo2.py`."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edge_llm.llm.families.olmo2 import Olmo2Config
from edge_llm.llm.models.layers import Attention, CacheShape, GatedMLP, RMSNorm, decoder


class HeadsNorm(nn.Module):
    """RMS norm over all heads of a token at once: (T, H, D) -> (T, H, D)."""

    def __init__(self, heads: int, head_dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads * head_dim))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = functional.rms_norm(x.flatten(1), self.weight.shape, self.weight, self.eps)
        return joined.view(-1, *x.shape[1:])


class PostNormBlock(nn.Module):
    """Attention and MLP, each normalized after and added to the stream."""

    def __init__(self, dim: int, eps: float, *, attention: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.self_attn = attention
        self.post_attention_layernorm = RMSNorm(dim, eps)
        self.mlp = mlp
        self.post_feedforward_layernorm = RMSNorm(dim, eps)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor | None,
        sin: torch.Tensor | None,
    ) -> torch.Tensor:
        x = x + self.post_attention_layernorm(self.self_attn(x, positions, sequences, cos, sin))
        out: torch.Tensor = x + self.post_feedforward_layernorm(self.mlp(x))
        return out


def build(config: Olmo2Config, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    dim, eps = config.hidden_size, config.rms_norm_eps

    def block(layer: int) -> nn.Module:
        attention = Attention(
            dim,
            config.attention(layer),
            cache,
            bias=config.attention_bias,
            q_norm=HeadsNorm(config.num_attention_heads, config.head_dim, eps),
            k_norm=HeadsNorm(config.num_key_value_heads, config.head_dim, eps),
        )
        mlp = GatedMLP(dim, config.intermediate_size)
        return PostNormBlock(dim, eps, attention=attention, mlp=mlp)

    return decoder(config, cache, block)
