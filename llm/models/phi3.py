"""The PyTorch module of Phi-3; its facts are in `families/phi3.py`."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edge_llm.llm.decoder import AttentionShape
from edge_llm.llm.families.phi3 import Phi3Config
from edge_llm.llm.models.layers import CachedAttention, CacheShape, prenorm_decoder


class FusedAttention(nn.Module):
    """Attention whose queries, keys and values are column ranges of one product."""

    def __init__(self, dim: int, shape: AttentionShape, cache: CacheShape) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = shape.heads, shape.kv_heads, shape.head_dim
        q_size, kv_size = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.sizes = [q_size, kv_size, kv_size]
        self.qkv_proj = nn.Linear(dim, sum(self.sizes), bias=False)
        self.o_proj = nn.Linear(q_size, dim, bias=False)
        self.attend = CachedAttention(shape, cache)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor | None,
        sin: torch.Tensor | None,
    ) -> torch.Tensor:
        q, k, v = self.qkv_proj(x).split(self.sizes, dim=-1)
        q = q.view(-1, self.heads, self.head_dim)  # (T, Hq, D)
        k = k.view(-1, self.kv_heads, self.head_dim)  # (T, Hkv, D)
        v = v.view(-1, self.kv_heads, self.head_dim)
        y: torch.Tensor = self.o_proj(self.attend(q, k, v, positions, sequences, cos, sin))
        return y


class FusedMLP(nn.Module):
    """down(silu(gate) * up), gate and up being the halves of one product."""

    def __init__(self, dim: int, ffn: int) -> None:
        super().__init__()
        self.sizes = [ffn, ffn]
        self.gate_up_proj = nn.Linear(dim, 2 * ffn, bias=False)
        self.down_proj = nn.Linear(ffn, dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up_proj(x).split(self.sizes, dim=-1)
        y: torch.Tensor = self.down_proj(functional.silu(gate) * up)
        return y


def build(config: Phi3Config, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    dim, ffn = config.hidden_size, config.intermediate_size
    return prenorm_decoder(
        config,
        cache,
        attention=lambda layer: FusedAttention(dim, config.attention(layer), cache),
        mlp=lambda layer: FusedMLP(dim, ffn),
    )
