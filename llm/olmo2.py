"""OLMo 2: attention and MLP are normalized after they are computed, not before; the heads of the
queries are normalized together before the rotation, and so are those of the keys."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edge_llm.llm.config import ConfigReader, ModelConfig
from edge_llm.llm.decoder import read_decoder
from edge_llm.llm.family import GGUF_BLOCK, Family
from edge_llm.llm.layers import Attention, CacheShape, GatedMLP, RMSNorm, decoder
from edge_llm.llm.rope import read_rope


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

    def __init__(self, config: ModelConfig, attention: nn.Module) -> None:
        super().__init__()
        self.self_attn = attention
        self.post_attention_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.mlp = GatedMLP(config)
        self.post_feedforward_layernorm = RMSNorm(config.dim, config.norm_eps)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> torch.Tensor:
        x = x + self.post_attention_layernorm(self.self_attn(x, positions, sequences, cos, sin))
        out: torch.Tensor = x + self.post_feedforward_layernorm(self.mlp(x))
        return out


def read(reader: ConfigReader) -> ModelConfig:
    """Facts of an Olmo2Config."""
    return read_decoder(
        reader, "olmo2", rope=read_rope(reader), norm_eps=1e-5, biases=("attention_bias",)
    )


def build(config: ModelConfig, cache: CacheShape) -> nn.Module:
    """The module; parameters are not initialized."""

    def block(layer: int) -> nn.Module:
        attention = Attention(
            config,
            cache,
            layer,
            q_norm=HeadsNorm(config.heads, config.head_dim, config.norm_eps),
            k_norm=HeadsNorm(config.kv_heads, config.head_dim, config.norm_eps),
        )
        return PostNormBlock(config, attention)

    return decoder(config, cache, block)


OLMO2 = Family(
    name="olmo2",
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
