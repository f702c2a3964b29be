"""Mistral 7B: Llama's blocks with a sliding window in every layer (none from v0.2 on)."""

from __future__ import annotations

from torch import nn

from edge_llm.llm.config import ConfigReader, ModelConfig
from edge_llm.llm.decoder import read_decoder, read_window
from edge_llm.llm.family import Family
from edge_llm.llm.layers import Attention, CacheShape, prenorm_decoder
from edge_llm.llm.rope import read_rope

DEFAULT_WINDOW = 4096


def read(reader: ConfigReader) -> ModelConfig:
    """Facts of a MistralConfig."""
    window = read_window(reader, DEFAULT_WINDOW)
    return read_decoder(reader, "mistral", rope=read_rope(reader), window=window)


def build(config: ModelConfig, cache: CacheShape) -> nn.Module:
    """The module; parameters are not initialized."""
    return prenorm_decoder(config, cache, lambda layer: Attention(config, cache, layer))


# GGUF files call these models "llama" and are read as such.
MISTRAL = Family(name="mistral", read=read, build=build)
