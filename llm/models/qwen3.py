"""The PyTorch module of Qwen3; its facts are in `families/qwen3.py`."""

from __future__ import annotations

from torch import nn

from edge_llm.llm.families.qwen3 import Qwen3Config
from edge_llm.llm.models.layers import Attention, CacheShape, GatedMLP, RMSNorm, prenorm_decoder


def build(config: Qwen3Config, cache: CacheShape) -> nn.Module:
    """Return the module; its parameters are not initialized."""
    dim, ffn = config.hidden_size, config.intermediate_size

    def attention(layer: int) -> nn.Module:
        return Attention(
            dim,
            config.attention(layer),
            cache,
            bias=config.attention_bias,
            q_norm=RMSNorm(config.head_dim, config.rms_norm_eps),
            k_norm=RMSNorm(config.head_dim, config.rms_norm_eps),
        )

    return prenorm_decoder(config, cache, attention, lambda layer: GatedMLP(dim, ffn))
