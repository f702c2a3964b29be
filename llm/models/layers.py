"""Blocks that several families are wired from. Each takes sizes and built submodules; attention
takes the shape that the family gives to its layer.

Submodules carry the names that Hugging Face checkpoints give them, so that parameter names need no
map. Everything is kept in operators that ``torch.export`` leaves whole: embedding, linear,
rms_norm, layer_norm, silu, gelu, mul, add, view, index_select, and those of ``ops.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from edge_llm.llm.decoder import AttentionShape, DecoderConfig, ropes_of
from edge_llm.llm.models import ops
from edge_llm.llm.rope_tables import table_names


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


class LayerNorm(nn.Module):
    """(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight + bias over each row."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.bias = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class CachedAttention(nn.Module):
    """Rotation of queries and keys, and grouped-query attention over a KV cache of its own.

    ``cos`` and ``sin`` are the tables of the shape's rope, None without. Where queries have a rope
    of their own, ``query_tables`` gives its tables: the decoder sets it, so that blocks hand on
    one pair alone."""

    k_cache: torch.Tensor
    v_cache: torch.Tensor
    query_tables: Callable[[], Iterable[torch.Tensor]] | None

    def __init__(self, shape: AttentionShape, cache: CacheShape) -> None:
        super().__init__()
        self.scale = shape.head_dim**-0.5 if shape.scale is None else shape.scale
        self.window, self.softcap = shape.window, shape.softcap
        self.bidirectional = shape.bidirectional
        self.query_tables = None
        width = ops.cache_width(shape.head_dim, cache.dtype)
        sizes = (cache.slots, cache.context, shape.kv_heads, width)
        for name in ("k_cache", "v_cache"):
            self.register_buffer(name, torch.zeros(sizes, dtype=cache.dtype), persistent=False)

    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor | None,
        sin: torch.Tensor | None,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """q: (T, Hq, D); k, v: (T, Hkv, D); sinks: (Hq,). Returns (T, Hq * D)."""
        if cos is not None and sin is not None:
            q = ops.rope(q, positions, *(self.query_tables() if self.query_tables else (cos, sin)))
            k = ops.rope(k, positions, cos, sin)
        out: torch.Tensor = ops.attention(
            q,
            k,
            v,
            self.k_cache,
            self.v_cache,
            positions,
            sequences,
            sinks,
            scale=self.scale,
            window=self.window,
            softcap=self.softcap,
            bidirectional=self.bidirectional,
        )
        return out.view(-1, q.shape[1] * q.shape[2])


class ReadingAttention(nn.Module):
    """Rotation of queries, and grouped-query attention over what ``source``, of a layer before, has
    written to its KV cache."""

    def __init__(self, source: CachedAttention) -> None:
        super().__init__()
        self._source = (source,)  # no part of this one

    def forward(
        self,
        q: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor | None,
        sin: torch.Tensor | None,
    ) -> torch.Tensor:
        """q: (R, Hq, D). Returns (R, Hq * D)."""
        (source,) = self._source
        if cos is not None and sin is not None:
            q = ops.rope(q, positions, cos, sin)
        out: torch.Tensor = ops.attend(
            q,
            source.k_cache,
            source.v_cache,
            positions,
            sequences,
            scale=source.scale,
            window=source.window,
            softcap=source.softcap,
        )
        return out.view(-1, q.shape[1] * q.shape[2])


class CausalConv(nn.Module):
    """A causal convolution of each column over the last ``taps`` rows of its sequence, which are
    kept in float32 whatever the type of the KV caches."""

    rows: torch.Tensor

    def __init__(self, width: int, taps: int, cache: CacheShape, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, taps))
        self.bias = nn.Parameter(torch.empty(width)) if bias else None
        rows = torch.zeros(cache.slots, cache.context, width)
        self.register_buffer("rows", rows, persistent=False)

    def forward(
        self, x: torch.Tensor, positions: torch.Tensor, sequences: torch.Tensor
    ) -> torch.Tensor:
        """x: (T, width). Returns (T, width)."""
        out: torch.Tensor = ops.causal_conv(
            x, self.weight, self.bias, self.rows, positions, sequences
        )
        return out


class Attention(nn.Module):
    """Projections of the stream, optional norms of each query and key head, cached attention, and
    the projection back. ``bias`` is on all four projections, ``qkv_bias`` on those of queries, keys
    and values; with ``sinks`` each head has a score more, which is a parameter."""

    def __init__(
        self,
        dim: int,
        shape: AttentionShape,
        cache: CacheShape,
        *,
        bias: bool = False,
        qkv_bias: bool = False,
        sinks: bool = False,
        q_norm: nn.Module | None = None,
        k_norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        q_size, kv_size = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.heads, self.kv_heads, self.head_dim = shape.heads, shape.kv_heads, shape.head_dim
        self.q_proj = nn.Linear(dim, q_size, bias=bias or qkv_bias)
        self.k_proj = nn.Linear(dim, kv_size, bias=bias or qkv_bias)
        self.v_proj = nn.Linear(dim, kv_size, bias=bias or qkv_bias)
        self.o_proj = nn.Linear(q_size, dim, bias=bias)
        self.sinks = nn.Parameter(torch.empty(shape.heads)) if sinks else None
        self.q_norm, self.k_norm = q_norm, k_norm
        self.attend = CachedAttention(shape, cache)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor | None,
        sin: torch.Tensor | None,
    ) -> torch.Tensor:
        q = self.q_proj(x).view(-1, self.heads, self.head_dim)  # (T, Hq, D)
        k = self.k_proj(x).view(-1, self.kv_heads, self.head_dim)  # (T, Hkv, D)
        v = self.v_proj(x).view(-1, self.kv_heads, self.head_dim)
        if self.q_norm is not None:
            q = self.q_norm(q)
        if self.k_norm is not None:
            k = self.k_norm(k)
        attended = self.attend(q, k, v, positions, sequences, cos, sin, self.sinks)
        y: torch.Tensor = self.o_proj(attended)
        return y


def gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    """Return GELU in its tanh approximation."""
    return functional.gelu(x, approximate="tanh")


class GatedMLP(nn.Module):
    """down(activation(gate(x)) * up(x))."""

    def __init__(
        self,
        dim: int,
        ffn: int,
        *,
        bias: bool = False,
        activation: Callable[[torch.Tensor], torch.Tensor] = functional.silu,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.gate_proj = nn.Linear(dim, ffn, bias=bias)
        self.up_proj = nn.Linear(dim, ffn, bias=bias)
        self.down_proj = nn.Linear(ffn, dim, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))
        return out


def scaled(x: torch.Tensor, factor: float | None) -> torch.Tensor:
    """Return ``x`` times ``factor``; itself for None."""
    return x if factor is None else x * factor


class Block(nn.Module):
    """Attention and MLP, each normalized before and added to the stream after, times
    ``residual_scale`` if there is one."""

    def __init__(
        self,
        *,
        input_layernorm: nn.Module,
        self_attn: nn.Module,
        post_attention_layernorm: nn.Module,
        mlp: nn.Module,
        residual_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.residual_scale = residual_scale
        self.input_layernorm = input_layernorm
        self.self_attn = self_attn
        self.post_attention_layernorm = post_attention_layernorm
        self.mlp = mlp

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor | None,
        sin: torch.Tensor | None,
    ) -> torch.Tensor:
        y = self.self_attn(self.input_layernorm(x), positions, sequences, cos, sin)
        x = x + scaled(y, self.residual_scale)
        return x + scaled(self.mlp(self.post_attention_layernorm(x)), self.residual_scale)


class SandwichBlock(nn.Module):
    """Attention and MLP, each normalized before and after, and added to the stream."""

    def __init__(self, dim: int, eps: float, *, attention: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(dim, eps)
        self.self_attn = attention
        self.post_attention_layernorm = RMSNorm(dim, eps)
        self.pre_feedforward_layernorm = RMSNorm(dim, eps)
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
        y = self.self_attn(self.input_layernorm(x), positions, sequences, cos, sin)
        x = x + self.post_attention_layernorm(y)
        y = self.mlp(self.pre_feedforward_layernorm(x))
        out: torch.Tensor = x + self.post_feedforward_layernorm(y)
        return out


class Decoder(nn.Module):
    """The common decoder: embed, blocks, pick rows, norm, head. Signature of the graph contract.

    ``model`` holds ``embed_tokens``, ``layers`` and the norm, by ``norm_name``. Each different rope
    of the layers has tables of cosines and sines (context, d), buffers called as `table_names`
    says, which `build.build_model` fills. ``tied_parameters`` maps a parameter to the one whose
    values it shares: they are two names in the graph, and one tensor in the checkpoint and in the
    program. ``embedding_scale`` multiplies what the table gives, ``logits_scale`` the logits, which
    ``logits_cap`` then bounds softly.
    """

    def __init__(
        self,
        config: DecoderConfig,
        cache: CacheShape,
        *,
        blocks: Iterable[nn.Module],
        norm: nn.Module,
        norm_name: str = "norm",
        embedding_scale: float | None = None,
        logits_scale: float | None = None,
        logits_cap: float | None = None,
        head_bias: bool = False,
    ) -> None:
        super().__init__()
        self.norm_name = norm_name
        self.embedding_scale = embedding_scale
        self.logits_scale, self.logits_cap = logits_scale, logits_cap
        vocab, dim = config.vocab_size, config.hidden_size
        self.model = nn.ModuleDict(
            {
                # Given a weight: random values, unwanted here, would make torch import its
                # compiler on the meta device.
                "embed_tokens": nn.Embedding(vocab, dim, _weight=torch.empty(vocab, dim)),
                "layers": nn.ModuleList(blocks),
                norm_name: norm,
            }
        )
        self.lm_head = nn.Linear(dim, vocab, bias=head_bias)
        tied = config.tie_word_embeddings
        self.tied_parameters = {"lm_head.weight": "model.embed_tokens.weight"} if tied else {}
        ropes = ropes_of(config)
        for index, rope in enumerate(ropes):
            for name in table_names(index):
                table = torch.empty(cache.context, rope.dim // 2)
                self.register_buffer(name, table, persistent=False)
        shapes = [config.attention(layer) for layer in range(config.num_hidden_layers)]
        self._tables = [
            None if shape is None or shape.rope is None else table_names(ropes.index(shape.rope))
            for shape in shapes
        ]
        for shape, block in zip(shapes, self.model["layers"], strict=True):  # type: ignore[call-overload]
            if shape is not None and shape.query_rope is not None:
                names = table_names(ropes.index(shape.query_rope))
                for part in block.modules():
                    if isinstance(part, CachedAttention):
                        part.query_tables = partial(map, self.get_buffer, names)

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        rows: torch.Tensor,
    ) -> torch.Tensor:
        """tokens, positions, sequences: int64 (T,); rows: int64 (R,), indices into tokens.

        Returns logits (R, vocab). Tokens of one sequence are contiguous, positions ascend."""
        x = scaled(self.model["embed_tokens"](tokens), self.embedding_scale)  # (T, dim)
        for block, names in zip(self.model["layers"], self._tables, strict=True):  # type: ignore[call-overload]
            cos, sin = (None, None) if names is None else map(self.get_buffer, names)
            x = block(x, positions, sequences, cos, sin)
        return self.logits(torch.index_select(x, 0, rows))

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (R, vocab) of the wanted rows of the stream, (R, dim)."""
        logits = scaled(self.lm_head(self.model[self.norm_name](x)), self.logits_scale)
        if self.logits_cap is not None:
            logits = ops.softcap(logits, self.logits_cap)
        return logits


def decoder(
    config: DecoderConfig,
    cache: CacheShape,
    block: Callable[[int], nn.Module],
    *,
    norm: nn.Module | None = None,
    norm_name: str = "norm",
    embedding_scale: float | None = None,
    logits_scale: float | None = None,
    logits_cap: float | None = None,
    head_bias: bool = False,
) -> Decoder:
    """Return the decoder of ``config``; ``block(layer)`` builds what families vary: a module that
    takes and returns the stream as ``Block`` does. The ``norm`` before the head is an RMS norm,
    unless another is given. The rest as in `Decoder`."""
    return Decoder(
        config,
        cache,
        blocks=[block(layer) for layer in range(config.num_hidden_layers)],
        norm=norm or RMSNorm(config.hidden_size, config.rms_norm_eps),
        norm_name=norm_name,
        embedding_scale=embedding_scale,
        logits_scale=logits_scale,
        logits_cap=logits_cap,
        head_bias=head_bias,
    )


def sandwich_decoder(
    config: DecoderConfig,
    cache: CacheShape,
    attention: Callable[[int], nn.Module],
    mlp: Callable[[int], nn.Module],
    *,
    embedding_scale: float,
    logits_cap: float | None,
) -> Decoder:
    """Return a decoder of ``SandwichBlock``s, for whose layers ``attention`` and ``mlp`` build the
    parts that families vary. The rest as in `Decoder`."""
    dim, eps = config.hidden_size, config.rms_norm_eps
    return decoder(
        config,
        cache,
        lambda layer: SandwichBlock(dim, eps, attention=attention(layer), mlp=mlp(layer)),
        embedding_scale=embedding_scale,
        logits_cap=logits_cap,
    )


def prenorm_decoder(
    config: DecoderConfig,
    cache: CacheShape,
    attention: Callable[[int], nn.Module],
    mlp: Callable[[int], nn.Module],
    *,
    embedding_scale: float | None = None,
    residual_scale: float | None = None,
    logits_scale: float | None = None,
) -> Decoder:
    """Return a decoder of ``Block``s, for whose layers ``attention`` and ``mlp`` build the parts
    that families vary. The rest as in `Block` and `Decoder`."""
    dim, eps = config.hidden_size, config.rms_norm_eps
    return decoder(
        config,
        cache,
        lambda layer: Block(
            input_layernorm=RMSNorm(dim, eps),
            self_attn=attention(layer),
            post_attention_layernorm=RMSNorm(dim, eps),
            mlp=mlp(layer),
            residual_scale=residual_scale,
        ),
        embedding_scale=embedding_scale,
        logits_scale=logits_scale,
    )
