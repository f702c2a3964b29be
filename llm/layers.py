"""Blocks that several families are wired from. Each takes sizes (attention, which needs most of
them, the config) and built submodules.

Submodules carry the names that Hugging Face checkpoints give them, so that parameter names need no
map. Everything is kept in operators that ``torch.export`` leaves whole: embedding, linear,
rms_norm, silu, mul, add, view, index_select, and the two of ``llm.ops``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from edge_llm.llm import ops
from edge_llm.llm.config import ModelConfig


@dataclass(frozen=True, slots=True)
class CacheShape:
    """The KV caches that a model is built with: sequences held, tokens each, element type."""

    slots: int
    context: int
    dtype: torch.dtype


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


class CachedAttention(nn.Module):
    """Rotation of queries and keys, and grouped-query attention over a KV cache of its own.

    ``layer`` picks the config's window and whether there is a rotation."""

    k_cache: torch.Tensor
    v_cache: torch.Tensor

    def __init__(self, config: ModelConfig, cache: CacheShape, layer: int) -> None:
        super().__init__()
        self.scale = config.head_dim**-0.5
        self.window, self.has_rope = config.window(layer), config.has_rope(layer)
        width = ops.cache_width(config.head_dim, cache.dtype)
        shape = (cache.slots, cache.context, config.kv_heads, width)
        for name in ("k_cache", "v_cache"):
            self.register_buffer(name, torch.zeros(shape, dtype=cache.dtype), persistent=False)

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> torch.Tensor:
        """q: (T, Hq, D); k, v: (T, Hkv, D). Returns (T, Hq * D)."""
        if self.has_rope:
            q = ops.rope(q, positions, cos, sin)
            k = ops.rope(k, positions, cos, sin)
        out: torch.Tensor = ops.attention(
            q,
            k,
            v,
            self.k_cache,
            self.v_cache,
            positions,
            sequences,
            scale=self.scale,
            window=self.window,
            softcap=0.0,
        )
        return out.view(-1, q.shape[1] * q.shape[2])


class Attention(nn.Module):
    """Projections of the stream, optional norms of each query and key head, cached attention, and
    the projection back. ``qkv_bias``: on queries, keys and values whatever the config says."""

    def __init__(
        self,
        config: ModelConfig,
        cache: CacheShape,
        layer: int,
        *,
        qkv_bias: bool = False,
        q_norm: nn.Module | None = None,
        k_norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        dim, bias = config.dim, config.attention_bias
        q_size, kv_size = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        self.q_proj = nn.Linear(dim, q_size, bias=bias or qkv_bias)
        self.k_proj = nn.Linear(dim, kv_size, bias=bias or qkv_bias)
        self.v_proj = nn.Linear(dim, kv_size, bias=bias or qkv_bias)
        self.o_proj = nn.Linear(q_size, dim, bias=bias)
        self.q_norm, self.k_norm = q_norm, k_norm
        self.attend = CachedAttention(config, cache, layer)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> torch.Tensor:
        q = self.q_proj(x).view(-1, self.heads, self.head_dim)  # (T, Hq, D)
        k = self.k_proj(x).view(-1, self.kv_heads, self.head_dim)  # (T, Hkv, D)
        v = self.v_proj(x).view(-1, self.kv_heads, self.head_dim)
        if self.q_norm is not None:
            q = self.q_norm(q)
        if self.k_norm is not None:
            k = self.k_norm(k)
        y: torch.Tensor = self.o_proj(self.attend(q, k, v, positions, sequences, cos, sin))
        return y


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, ffn, bias = config.dim, config.ffn, config.mlp_bias
        self.gate_proj = nn.Linear(dim, ffn, bias=bias)
        self.up_proj = nn.Linear(dim, ffn, bias=bias)
        self.down_proj = nn.Linear(ffn, dim, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Block(nn.Module):
    """Attention and MLP, each normalized before and added to the stream after."""

    def __init__(
        self,
        *,
        input_layernorm: nn.Module,
        self_attn: nn.Module,
        post_attention_layernorm: nn.Module,
        mlp: nn.Module,
    ) -> None:
        super().__init__()
        self.input_layernorm = input_layernorm
        self.self_attn = self_attn
        self.post_attention_layernorm = post_attention_layernorm
        self.mlp = mlp

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> torch.Tensor:
        x = x + self.self_attn(self.input_layernorm(x), positions, sequences, cos, sin)
        out: torch.Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Decoder(nn.Module):
    """The common decoder: embed, blocks, pick rows, norm, head. Signature of the graph contract.

    ``model`` holds ``embed_tokens``, ``layers`` and ``norm``. Rotary tables are buffers ``cos`` and
    ``sin`` (context, d); ``registry.build_model`` fills them. ``tied_parameters`` maps a parameter
    to the one whose values it shares: they are two names in the graph, and one tensor in the
    checkpoint and in the program.
    """

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(
        self,
        *,
        vocab: int,
        dim: int,
        blocks: Iterable[nn.Module],
        norm: nn.Module,
        table_shape: tuple[int, int],
        tied: bool,
    ) -> None:
        super().__init__()
        self.model = nn.ModuleDict(
            {
                # Given a weight: random values, unwanted here, would make torch import its
                # compiler on the meta device.
                "embed_tokens": nn.Embedding(vocab, dim, _weight=torch.empty(vocab, dim)),
                "layers": nn.ModuleList(blocks),
                "norm": norm,
            }
        )
        self.lm_head = nn.Linear(dim, vocab, bias=False)
        self.tied_parameters = {"lm_head.weight": "model.embed_tokens.weight"} if tied else {}
        for name in ("cos", "sin"):
            self.register_buffer(name, torch.empty(table_shape), persistent=False)

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        rows: torch.Tensor,
    ) -> torch.Tensor:
        """tokens, positions, sequences: int64 (T,); rows: int64 (R,), indices into tokens.

        Returns logits (R, vocab). Tokens of one sequence are contiguous, positions ascend."""
        x = self.model["embed_tokens"](tokens)  # (T, dim)
        for block in self.model["layers"]:  # type: ignore[attr-defined]
            x = block(x, positions, sequences, self.cos, self.sin)
        x = torch.index_select(x, 0, rows)  # (R, dim)
        logits: torch.Tensor = self.lm_head(self.model["norm"](x))
        return logits


def prenorm_block(config: ModelConfig, *, attention: nn.Module, mlp: nn.Module) -> Block:
    """A ``Block`` with the norms that most families share."""
    return Block(
        input_layernorm=RMSNorm(config.dim, config.norm_eps),
        self_attn=attention,
        post_attention_layernorm=RMSNorm(config.dim, config.norm_eps),
        mlp=mlp,
    )


def decoder(config: ModelConfig, cache: CacheShape, block: Callable[[int], nn.Module]) -> Decoder:
    """The decoder of ``config``; ``block(layer)`` builds what families vary: a module that takes
    and returns the stream as ``Block`` does."""
    return Decoder(
        vocab=config.vocab,
        dim=config.dim,
        blocks=[block(layer) for layer in range(config.layers)],
        norm=RMSNorm(config.dim, config.norm_eps),
        table_shape=(cache.context, config.rotary_dim // 2),
        tied=config.tied,
    )


def prenorm_decoder(
    config: ModelConfig, cache: CacheShape, attention: Callable[[int], nn.Module]
) -> Decoder:
    """A decoder of ``Block``s with gated MLPs; ``attention(layer)`` builds the part that families
    vary."""
    return decoder(
        config,
        cache,
        lambda layer: prenorm_block(config, attention=attention(layer), mlp=GatedMLP(config)),
    )
