"""SmolLM3: Llama's blocks, some of them without rotary embedding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from edge_llm.llm.config import ConfigReader, ModelConfig, shorten
from edge_llm.llm.decoder import read_decoder, read_window
from edge_llm.llm.family import GGUF_BLOCK, Family
from edge_llm.llm.layers import Attention, CacheShape, prenorm_decoder
from edge_llm.llm.rope import read_rope

DEFAULT_THETA = 2_000_000.0
DEFAULT_INTERVAL = 4


def read(reader: ConfigReader) -> ModelConfig:
    """Facts of a SmolLM3Config."""
    has_rope = _read_roped(reader)
    window = read_window(reader, 0)
    config = read_decoder(
        reader,
        "smollm3",
        rope=read_rope(reader, theta=DEFAULT_THETA),
        tied=True,
        biases=("attention_bias", "mlp_bias"),
        window=window if reader.flag("use_sliding_window", False) else 0,
        slides=lambda layer: not has_rope(layer),
    )
    roped = tuple(has_rope(layer) for layer in range(config.layers))
    return config if all(roped) else replace(config, roped=roped)


def _read_roped(reader: ConfigReader) -> Callable[[int], bool]:
    """``no_rope_layers`` holds a 1 for each layer that does rotate; without it every
    ``no_rope_layer_interval``-th layer does not."""
    interval = reader.integer("no_rope_layer_interval", DEFAULT_INTERVAL)
    flags = reader.get("no_rope_layers")
    if flags is None:
        return lambda layer: (layer + 1) % interval != 0
    layers = reader.get("num_hidden_layers")
    if (
        isinstance(flags, list)
        and all(flag in (0, 1) for flag in flags)
        and isinstance(layers, int)
        and len(flags) >= layers
    ):
        return lambda layer: bool(flags[layer])
    reader.problem(
        f"no_rope_layers: got {shorten(flags)}, expected 0 or 1 for each of the "
        f"{shorten(layers)} layers"
    )
    return lambda layer: True


def build(config: ModelConfig, cache: CacheShape) -> nn.Module:
    """The module; parameters are not initialized."""
    return prenorm_decoder(config, cache, lambda layer: Attention(config, cache, layer))


SMOLLM3 = Family(
    name="smollm3",
    read=read,
    build=build,
    harmless=frozenset({"max_window_layers"}),  # not used by its windows
    gguf_architecture="smollm3",
    gguf_layer_names=GGUF_BLOCK,
    gguf_interleaved=frozenset({"attn_q.weight", "attn_k.weight"}),
)
