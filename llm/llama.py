"""Llama 2 and 3.x, and the checkpoints that share their architecture (SmolLM2)."""

from __future__ import annotations

import re

from torch import nn

from edge_llm.llm.config import ConfigReader, ModelConfig
from edge_llm.llm.decoder import read_decoder
from edge_llm.llm.family import GGUF_BLOCK, Family
from edge_llm.llm.layers import Attention, CacheShape, prenorm_decoder
from edge_llm.llm.rope import read_rope


def read(reader: ConfigReader) -> ModelConfig:
    """Facts of a LlamaConfig."""
    reader.neutral("rope_interleaved", False)  # SmolLM2 carries it
    return read_decoder(
        reader, "llama", rope=read_rope(reader), biases=("attention_bias", "mlp_bias")
    )


def build(config: ModelConfig, cache: CacheShape) -> nn.Module:
    """The module; parameters are not initialized."""
    return prenorm_decoder(config, cache, lambda layer: Attention(config, cache, layer))


LLAMA = Family(
    name="llama",
    read=read,
    build=build,
    # tables that early checkpoints stored
    leftovers=re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"),
    gguf_architecture="llama",
    gguf_layer_names=GGUF_BLOCK,
    gguf_interleaved=frozenset({"attn_q.weight", "attn_k.weight"}),
)
