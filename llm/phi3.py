"""Phi-3, Phi-3.5 and Phi-4 mini: one matrix for queries, keys and values, one for gate and up;
LongRoPE, a rotation of part of each head, and a sliding window where the config says so."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edge_llm.llm.config import ConfigReader, ModelConfig
from edge_llm.llm.decoder import read_decoder, read_window
from edge_llm.llm.family import Family
from edge_llm.llm.layers import CachedAttention, CacheShape, decoder, prenorm_block
from edge_llm.llm.rope import read_rope


class FusedAttention(nn.Module):
    """Attention whose queries, keys and values are column ranges of one product."""

    def __init__(self, config: ModelConfig, cache: CacheShape, layer: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        q_size, kv_size = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.sizes = [q_size, kv_size, kv_size]
        self.qkv_proj = nn.Linear(config.dim, sum(self.sizes), bias=False)
        self.o_proj = nn.Linear(q_size, config.dim, bias=False)
        self.attend = CachedAttention(config, cache, layer)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> torch.Tensor:
        q, k, v = self.qkv_proj(x).split(self.sizes, dim=-1)
        q = q.view(-1, self.heads, self.head_dim)  # (T, Hq, D)
        k = k.view(-1, self.kv_heads, self.head_dim)  # (T, Hkv, D)
        v = v.view(-1, self.kv_heads, self.head_dim)
        y: torch.Tensor = self.o_proj(self.attend(q, k, v, positions, sequences, cos, sin))
        return y


class FusedMLP(nn.Module):
    """down(silu(gate) * up), gate and up being the halves of one product."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sizes = [config.ffn, config.ffn]
        self.gate_up_proj = nn.Linear(config.dim, 2 * config.ffn, bias=False)
        self.down_proj = nn.Linear(config.ffn, config.dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up_proj(x).split(self.sizes, dim=-1)
        y: torch.Tensor = self.down_proj(functional.silu(gate) * up)
        return y


def read(reader: ConfigReader) -> ModelConfig:
    """Facts of a Phi3Config."""
    reader.neutral("lm_head_bias", False)
    reader.neutral("full_attn_mod", 1)  # every layer attends alike
    reader.neutral("interpolate_factor", 1)
    return read_decoder(
        reader,
        "phi3",
        rope=read_rope(reader, partial=True),
        norm_eps=1e-5,
        window=read_window(reader, 0),
    )


def build(config: ModelConfig, cache: CacheShape) -> nn.Module:
    """The module; parameters are not initialized."""
    return decoder(
        config,
        cache,
        lambda layer: prenorm_block(
            config, attention=FusedAttention(config, cache, layer), mlp=FusedMLP(config)
        ),
    )


PHI3 = Family(
    name="phi3",
    read=read,
    build=build,
    # dropout of training; the length that LongRoPE extends, without LongRoPE
    harmless=frozenset({"embd_pdrop", "resid_pdrop", "original_max_position_embeddings"}),
    gguf_architecture="phi3",
    gguf_layer_names={
        "attn_norm.weight": "input_layernorm.weight",
        "attn_qkv.weight": "self_attn.qkv_proj.weight",
        "attn_output.weight": "self_attn.o_proj.weight",
        "ffn_norm.weight": "post_attention_layernorm.weight",
        "ffn_up.weight": "mlp.gate_up_proj.weight",
        "ffn_down.weight": "mlp.down_proj.weight",
    },
)
