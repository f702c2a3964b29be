"""The PyTorch module of Qwen3.5; its facts are in `families/qwen3_5_text.py`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from edge_llm.llm.decoder import AttentionShape, DeltaShape
from edge_llm.llm.families.qwen3_5_text import Qwen35TextConfig
from edge_llm.llm.models.delta import decay, gated_delta
from edge_llm.llm.models.draft import Predictor
from edge_llm.llm.models.layers import (
    CachedAttention,
    CacheShape,
    CausalConv,
    GatedMLP,
    RMSNorm,
    decoder,
)
from edge_llm.llm.rope_tables import table_names

NORM_EPS = 1e-6  # of queries and keys, whatever the config says of other norms


class GatedAttention(nn.Module):
    """Attention whose queries come with as wide a gate, a head of either after the other; the
    sigmoid of the gate multiplies what is attended."""

    def __init__(
        self, dim: int, shape: AttentionShape, cache: CacheShape, *, bias: bool, eps: float
    ) -> None:
        super().__init__()
        q_size, kv_size = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.heads, self.kv_heads, self.head_dim = shape.heads, shape.kv_heads, shape.head_dim
        self.q_proj = nn.Linear(dim, 2 * q_size, bias=bias)
        self.k_proj = nn.Linear(dim, kv_size, bias=bias)
        self.v_proj = nn.Linear(dim, kv_size, bias=bias)
        self.o_proj = nn.Linear(q_size, dim, bias=bias)
        self.q_norm = RMSNorm(shape.head_dim, eps)
        self.k_norm = RMSNorm(shape.head_dim, eps)
        self.attend = CachedAttention(shape, cache)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor | None,
        sin: torch.Tensor | None,
    ) -> torch.Tensor:
        both = self.q_proj(x).view(-1, self.heads, 2 * self.head_dim)
        q, gate = torch.split(both, [self.head_dim, self.head_dim], dim=-1)  # (T, Hq, D) each
        k = self.k_proj(x).view(-1, self.kv_heads, self.head_dim)
        v = self.v_proj(x).view(-1, self.kv_heads, self.head_dim)
        q, k = self.q_norm(q), self.k_norm(k)
        attended = self.attend(q, k, v, positions, sequences, cos, sin)
        y: torch.Tensor = self.o_proj(attended * torch.sigmoid(gate.flatten(1)))
        return y


class GatedDelta(nn.Module):
    """The gated delta rule over queries, keys and values behind a convolution and SiLU, each head
    of its outputs normalized and gated."""

    state: torch.Tensor

    def __init__(
        self, dim: int, shape: DeltaShape, taps: int, cache: CacheShape, eps: float
    ) -> None:
        super().__init__()
        self.shape = shape
        keys, values = shape.key_heads * shape.k_dim, shape.heads * shape.v_dim
        self.sizes = [keys, keys, values]
        width = sum(self.sizes)
        self.in_proj_qkv = nn.Linear(dim, width, bias=False)
        self.in_proj_z = nn.Linear(dim, values, bias=False)
        self.in_proj_b = nn.Linear(dim, shape.heads, bias=False)
        self.in_proj_a = nn.Linear(dim, shape.heads, bias=False)
        self.conv1d = CausalConv(width, taps, cache)
        self.A_log = nn.Parameter(torch.empty(shape.heads))
        self.dt_bias = nn.Parameter(torch.empty(shape.heads))
        self.norm = RMSNorm(shape.v_dim, eps)
        self.out_proj = nn.Linear(values, dim, bias=False)
        state = torch.zeros(cache.slots, shape.heads, shape.k_dim, shape.v_dim)
        self.register_buffer("state", state, persistent=False)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor | None,
        sin: torch.Tensor | None,
    ) -> torch.Tensor:
        shape = self.shape
        mixed = functional.silu(self.conv1d(self.in_proj_qkv(x), positions, sequences))
        q, k, v = torch.split(mixed, self.sizes, dim=-1)
        out = gated_delta(
            q.view(-1, shape.key_heads, shape.k_dim),
            k.view(-1, shape.key_heads, shape.k_dim),
            v.view(-1, shape.heads, shape.v_dim),
            decay(self.in_proj_a(x), self.A_log, self.dt_bias),
            torch.sigmoid(self.in_proj_b(x)),
            self.state,
            positions,
            sequences,
            eps=NORM_EPS,
            scale=shape.k_dim**-0.5,
        )
        gated = self.norm(out).flatten(1) * functional.silu(self.in_proj_z(x))
        y: torch.Tensor = self.out_proj(gated)
        return y


class Qwen35Block(nn.Module):
    """A layer: attention or the delta rule, and an MLP, each normalized before and added to the
    stream after."""

    def __init__(
        self, config: Qwen35TextConfig, layer: int, cache: CacheShape, mlp: nn.Module
    ) -> None:
        super().__init__()
        dim, eps = config.hidden_size, config.rms_norm_eps
        attention = config.attention(layer)
        if attention is None:
            self.linear_attn = GatedDelta(
                dim, config.delta, config.linear_conv_kernel_dim, cache, eps
            )
        else:
            self.self_attn = GatedAttention(
                dim, attention, cache, bias=config.attention_bias, eps=eps
            )
        self.folds = attention is None
        self.input_layernorm = RMSNorm(dim, eps)
        self.post_attention_layernorm = RMSNorm(dim, eps)
        self.mlp = mlp

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor | None,
        sin: torch.Tensor | None,
    ) -> torch.Tensor:
        mixer = self.linear_attn if self.folds else self.self_attn
        x = x + mixer(self.input_layernorm(x), positions, sequences, cos, sin)
        out: torch.Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


def build(config: Qwen35TextConfig, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""

    def block(layer: int) -> nn.Module:
        mlp = GatedMLP(config.hidden_size, config.intermediate_size)
        return Qwen35Block(config, layer, cache, mlp)

    return predicting(config, cache, block)


def predicting(
    config: Qwen35TextConfig, cache: CacheShape, block: Callable[[int], nn.Module]
) -> nn.Module:
    """Return the decoder whose layers ``block`` builds, with the layer that predicts further tokens
    where there is one: it is like those that attend."""
    model = decoder(config, cache, block)
    if config.mtp_weights:
        dim, eps = config.hidden_size, config.rms_norm_eps
        layer = block(config.linear.index(False))
        model.mtp = Predictor(dim, eps, cache, layer, table_names(0))
    return model
