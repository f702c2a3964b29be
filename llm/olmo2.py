"""OLMo 2: attention and MLP are normalized after they are computed, not before; the heads of the
queries are normalized together before the rotation, and so are those of the keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from edge_llm.llm.config import ConfigReader
from edge_llm.llm.decoder import AttentionShape, read_common, read_windows
from edge_llm.llm.family import GGUF_BLOCK, Family
from edge_llm.llm.layers import Attention, CacheShape, GatedMLP, RMSNorm, decoder
from edge_llm.llm.rope import Rope


@dataclass(frozen=True, slots=True, kw_only=True)
class Olmo2Config:
    """Facts of an Olmo2Config."""

    model_type: ClassVar[str] = "olmo2"

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_parameters: Rope
    tie_word_embeddings: bool
    attention_bias: bool

    def attention(self, layer: int) -> AttentionShape:
        """Return what the attention of ``layer`` computes."""
        return AttentionShape(
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            rope=self.rope_parameters,
        )


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


def read(reader: ConfigReader) -> Olmo2Config:
    """Read an Olmo2Config."""
    common = read_common(reader, norm_eps=1e-5, biases=("attention_bias",))
    read_windows(reader, common)
    return Olmo2Config(**common, attention_bias=reader.flag("attention_bias", False))


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


OLMO2 = Family(
    config=Olmo2Config,
    read=read,
    build=build,
    gguf_architecture="olmo2",
    gguf_layer_names={
        name: inner for name, inner in GGUF_BLOCK.items() if not name.endswith("_norm.weight")
    }
    | {
        "attn_q_norm.weight": "self_attn.q_norm.weight",
        "attn_k_norm.weight": "self_attn.k_norm.weight",
        "post_attention_norm.weight": "post_attention_layernorm.weight",
        "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
    },
)
