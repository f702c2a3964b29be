"""The PyTorch module of Gemma 4's text models; its facts are in `families/gemma4_text.py`."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edge_llm.llm.decoder import AttentionShape
from edge_llm.llm.families.gemma4_text import Gemma4TextConfig
from edge_llm.llm.models.experts import Experts, route
from edge_llm.llm.models.layers import (
    CachedAttention,
    CacheShape,
    Decoder,
    GatedMLP,
    ReadingAttention,
    RMSNorm,
    gelu_tanh,
    scaled,
)


def build(config: Gemma4TextConfig, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    return Gemma4(config, cache)


class WritingHeads(nn.Module):
    """Attention over keys and values of its own, both normalized; ``keys_are_values``: both are
    made by one projection."""

    def __init__(
        self,
        dim: int,
        eps: float,
        shape: AttentionShape,
        cache: CacheShape,
        *,
        keys_are_values: bool,
    ) -> None:
        super().__init__()
        size, kv_size = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.heads, self.kv_heads = shape.heads, shape.kv_heads
        self.head_dim, self.eps = shape.head_dim, eps
        self.q_proj = nn.Linear(dim, size, bias=False)
        self.k_proj = nn.Linear(dim, kv_size, bias=False)
        self.v_proj = None if keys_are_values else nn.Linear(dim, kv_size, bias=False)
        self.o_proj = nn.Linear(size, dim, bias=False)
        self.q_norm = RMSNorm(shape.head_dim, eps)
        self.k_norm = RMSNorm(shape.head_dim, eps)
        self.attend = CachedAttention(shape, cache)

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
        v = k if self.v_proj is None else self.v_proj(x).view(-1, self.kv_heads, self.head_dim)
        v = functional.rms_norm(v, (self.head_dim,), None, self.eps)
        attended = self.attend(self.q_norm(q), self.k_norm(k), v, positions, sequences, cos, sin)
        out: torch.Tensor = self.o_proj(attended)
        return out


class ReadingHeads(nn.Module):
    """Attention over the keys and values of the layer that ``source`` belongs to."""

    def __init__(
        self, dim: int, eps: float, shape: AttentionShape, source: CachedAttention
    ) -> None:
        super().__init__()
        size = shape.heads * shape.head_dim
        self.heads, self.head_dim = shape.heads, shape.head_dim
        self.q_proj = nn.Linear(dim, size, bias=False)
        self.o_proj = nn.Linear(size, dim, bias=False)
        self.q_norm = RMSNorm(shape.head_dim, eps)
        self.attend = ReadingAttention(source)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> torch.Tensor:
        q = self.q_proj(x).view(-1, self.heads, self.head_dim)  # (R, Hq, D)
        attended = self.attend(self.q_norm(q), positions, sequences, cos, sin)
        out: torch.Tensor = self.o_proj(attended)
        return out


class Router(nn.Module):
    """The shares of the experts that each token goes to."""

    def __init__(self, dim: int, eps: float, *, experts: int, chosen: int) -> None:
        super().__init__()
        self.dim, self.eps, self.chosen = dim, eps, chosen
        self.scale = nn.Parameter(torch.empty(dim))
        self.proj = nn.Linear(dim, experts, bias=False)
        self.per_expert_scale = nn.Parameter(torch.empty(experts))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.rms_norm(x, (self.dim,), self.scale, self.eps) * self.dim**-0.5
        shares: torch.Tensor = route(
            self.proj(x),
            None,
            chosen=self.chosen,
            scoring="softmax",
            normalize=True,
            eps=0.0,
            scale=1.0,
            factors=self.per_expert_scale,
        )
        return shares


class Gemma4Block(nn.Module):
    """A layer: attention and MLP between norms, with experts beside the MLP if there are any; then
    what the second table has for the layer, gated; and all times a scalar."""

    def __init__(self, config: Gemma4TextConfig, layer: int, attention: nn.Module) -> None:
        super().__init__()
        dim, eps = config.hidden_size, config.rms_norm_eps
        width = config.intermediate_size * (2 if config.double_wide[layer] else 1)
        self.layer, self.experts = layer, None
        self.reads = layer >= config.first_reader
        self.input_layernorm = RMSNorm(dim, eps)
        self.self_attn = attention
        self.post_attention_layernorm = RMSNorm(dim, eps)
        self.pre_feedforward_layernorm = RMSNorm(dim, eps)
        self.mlp = GatedMLP(dim, width, activation=gelu_tanh)
        self.post_feedforward_layernorm = RMSNorm(dim, eps)
        if config.num_experts:
            count, chosen = config.num_experts, config.top_k_experts
            self.router = Router(dim, eps, experts=count, chosen=chosen)
            self.experts = Experts(
                dim,
                config.moe_intermediate_size,
                experts=count,
                chosen=chosen,
                activation="gelu",
            )
            self.post_feedforward_layernorm_1 = RMSNorm(dim, eps)
            self.pre_feedforward_layernorm_2 = RMSNorm(dim, eps)
            self.post_feedforward_layernorm_2 = RMSNorm(dim, eps)
        self.per_layer_width = config.hidden_size_per_layer_input
        if self.per_layer_width is not None:
            per_layer = self.per_layer_width
            self.per_layer_input_gate = nn.Linear(dim, per_layer, bias=False)
            self.per_layer_projection = nn.Linear(per_layer, dim, bias=False)
            self.post_per_layer_input_norm = RMSNorm(dim, eps)
        self.layer_scalar = nn.Parameter(torch.empty(1))

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        rows: torch.Tensor,
        per_layer: torch.Tensor | None,
    ) -> torch.Tensor:
        """x: (T, dim); of a layer that reads another's keys and values (R, dim), like ``positions``
        and ``sequences``. ``per_layer``: (T, layers * width)."""
        y = self.self_attn(self.input_layernorm(x), positions, sequences, cos, sin)
        x = x + self.post_attention_layernorm(y)
        y = self.mlp(self.pre_feedforward_layernorm(x))
        if self.experts is not None:
            y = self.post_feedforward_layernorm_1(y)
            routed = self.experts(self.pre_feedforward_layernorm_2(x), self.router(x))
            y = y + self.post_feedforward_layernorm_2(routed)
        x = x + self.post_feedforward_layernorm(y)
        width = self.per_layer_width
        if width is not None and per_layer is not None:
            own = per_layer.narrow(1, self.layer * width, width)
            if self.reads:
                own = torch.index_select(own, 0, rows)
            y = self.per_layer_projection(gelu_tanh(self.per_layer_input_gate(x)) * own)
            x = x + self.post_per_layer_input_norm(y)
        return x * self.layer_scalar


class Gemma4(Decoder):
    """The decoder: layers that read the keys and values of others compute the wanted rows alone."""

    def __init__(self, config: Gemma4TextConfig, cache: CacheShape) -> None:
        dim, eps = config.hidden_size, config.rms_norm_eps
        self_attn: list[WritingHeads | ReadingHeads] = []
        for layer in range(config.num_hidden_layers):
            shape = config.attention(layer)
            if shape.source is None:
                alike = config.keys_are_values[layer]
                heads = WritingHeads(dim, eps, shape, cache, keys_are_values=alike)
                self_attn.append(heads)
            else:
                source = self_attn[shape.source].attend
                assert isinstance(source, CachedAttention)  # a layer before the first that reads
                self_attn.append(ReadingHeads(dim, eps, shape, source))
        super().__init__(
            config,
            cache,
            blocks=[Gemma4Block(config, layer, heads) for layer, heads in enumerate(self_attn)],
            norm=RMSNorm(dim, eps),
            embedding_scale=dim**0.5,
            logits_cap=config.final_logit_softcapping,
        )
        self.first_reader = config.first_reader
        self.per_layer_width = config.hidden_size_per_layer_input
        if self.per_layer_width is not None:
            width = config.num_hidden_layers * self.per_layer_width
            count = config.vocab_size_per_layer_input
            table = nn.Embedding(count, width, _weight=torch.empty(count, width))
            self.model["embed_tokens_per_layer"] = table
            self.model["per_layer_model_projection"] = nn.Linear(dim, width, bias=False)
            self.model["per_layer_projection_norm"] = RMSNorm(self.per_layer_width, eps)

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        rows: torch.Tensor,
    ) -> torch.Tensor:
        """See `Decoder`."""
        embedded = self.model["embed_tokens"](tokens)  # (T, dim)
        per_layer = self._per_layer(tokens, embedded)
        x = scaled(embedded, self.embedding_scale)
        first, layers = self.first_reader, len(self._tables)
        x = self._through(range(first), x, positions, sequences, rows, per_layer)
        x, positions, sequences = (
            torch.index_select(value, 0, rows) for value in (x, positions, sequences)
        )
        x = self._through(range(first, layers), x, positions, sequences, rows, per_layer)
        return self.logits(x)

    def _through(
        self,
        layers: range,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        rows: torch.Tensor,
        per_layer: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the stream behind these layers."""
        for layer in layers:
            block = self.model["layers"][layer]  # type: ignore[index]
            tables = map(self.get_buffer, self._tables[layer] or ())  # every layer rotates
            x = block(x, positions, sequences, *tables, rows, per_layer)
        return x

    def _per_layer(self, tokens: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor | None:
        """Return what the second table has for the layers, (T, layers * width), plus a projection
        of the embeddings, which are not scaled: the factors of both would cancel out."""
        width = self.per_layer_width
        if width is None:
            return None
        table = self.model["embed_tokens_per_layer"](tokens) * width**0.5
        projected = self.model["per_layer_model_projection"](embedded)
        runs = projected.view(-1, len(self._tables), width)
        normal = self.model["per_layer_projection_norm"](runs).view(-1, len(self._tables) * width)
        out: torch.Tensor = (normal + table) * 2**-0.5
        return out
