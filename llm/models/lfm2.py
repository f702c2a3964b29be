"""The PyTorch module of LFM2; its facts are in `families/lfm2.py`."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edge_llm.llm.decoder import AttentionShape
from edge_llm.llm.families.lfm2 import Lfm2Config
from edge_llm.llm.models.layers import CachedAttention, CacheShape, CausalConv, RMSNorm, decoder


class Lfm2Attention(nn.Module):
    """Attention with a norm of each query and key head."""

    def __init__(self, dim: int, eps: float, shape: AttentionShape, cache: CacheShape) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = shape.heads, shape.kv_heads, shape.head_dim
        q_size, kv_size = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(dim, q_size, bias=False)
        self.k_proj = nn.Linear(dim, kv_size, bias=False)
        self.v_proj = nn.Linear(dim, kv_size, bias=False)
        self.out_proj = nn.Linear(q_size, dim, bias=False)
        self.q_layernorm = RMSNorm(shape.head_dim, eps)
        self.k_layernorm = RMSNorm(shape.head_dim, eps)
        self.attend = CachedAttention(shape, cache)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor | None,
        sin: torch.Tensor | None,
    ) -> torch.Tensor:
        q = self.q_layernorm(self.q_proj(x).view(-1, self.heads, self.head_dim))  # (T, Hq, D)
        k = self.k_layernorm(self.k_proj(x).view(-1, self.kv_heads, self.head_dim))  # (T, Hkv, D)
        v = self.v_proj(x).view(-1, self.kv_heads, self.head_dim)
        y: torch.Tensor = self.out_proj(self.attend(q, k, v, positions, sequences, cos, sin))
        return y


class ShortConv(nn.Module):
    """out(c * convolution(b * x)), b, c and x being the thirds of one product."""

    def __init__(self, dim: int, taps: int, cache: CacheShape, *, bias: bool) -> None:
        super().__init__()
        self.sizes = [dim] * 3
        self.in_proj = nn.Linear(dim, 3 * dim, bias=bias)
        self.conv = CausalConv(dim, taps, cache, bias=bias)
        self.out_proj = nn.Linear(dim, dim, bias=bias)

    def forward(
        self, x: torch.Tensor, positions: torch.Tensor, sequences: torch.Tensor
    ) -> torch.Tensor:
        before, after, inner = self.in_proj(x).split(self.sizes, dim=-1)
        y: torch.Tensor = self.out_proj(after * self.conv(before * inner, positions, sequences))
        return y


class Lfm2MLP(nn.Module):
    """w2(silu(w1(x)) * w3(x))."""

    def __init__(self, dim: int, ffn: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, ffn, bias=False)
        self.w2 = nn.Linear(ffn, dim, bias=False)
        self.w3 = nn.Linear(dim, ffn, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.w2(functional.silu(self.w1(x)) * self.w3(x))
        return y


class Lfm2Block(nn.Module):
    """Attention or a convolution, and an MLP, each normalized before and added to the stream."""

    def __init__(self, config: Lfm2Config, layer: int, cache: CacheShape, mlp: nn.Module) -> None:
        super().__init__()
        dim, eps = config.hidden_size, config.rms_norm_eps
        self.self_attn, self.conv = None, None
        if (shape := config.attention(layer)) is None:
            self.conv = ShortConv(dim, config.conv_L_cache, cache, bias=config.conv_bias)
        else:
            self.self_attn = Lfm2Attention(dim, eps, shape, cache)
        self.operator_norm = RMSNorm(dim, eps)
        self.ffn_norm = RMSNorm(dim, eps)
        self.feed_forward = mlp

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor | None,
        sin: torch.Tensor | None,
    ) -> torch.Tensor:
        y = self.operator_norm(x)
        if self.self_attn is not None:
            x = x + self.self_attn(y, positions, sequences, cos, sin)
        elif self.conv is not None:
            x = x + self.conv(y, positions, sequences)
        out: torch.Tensor = x + self.feed_forward(self.ffn_norm(x))
        return out


def build(config: Lfm2Config, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    dim, ffn = config.hidden_size, config.intermediate_size
    return decoder(
        config,
        cache,
        lambda layer: Lfm2Block(config, layer, cache, Lfm2MLP(dim, ffn)),
        norm_name="embedding_norm",
    )
