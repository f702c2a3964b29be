"""SmolLM3: Llama's blocks, some of them without rotary embedding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import ConfigReader, is_integer, shorten
from edge_llm.llm.decoder import AttentionShape, read_common, read_window, read_windows
from edge_llm.llm.families.family import GGUF_BLOCK, Family
from edge_llm.llm.rope import Rope

DEFAULT_THETA = 2_000_000.0


DEFAULT_INTERVAL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SmolLM3Config:
    """Facts of a SmolLM3Config; ``sliding_window`` has one of each layer, 0 for none, and
    ``no_rope_layers`` a True for each layer that does rotate, in spite of its name."""

    model_type: ClassVar[str] = "smollm3"

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
    mlp_bias: bool
    sliding_window: tuple[int, ...]
    no_rope_layers: tuple[bool, ...]

    def attention(self, layer: int) -> AttentionShape:
        """Return what the attention of ``layer`` computes."""
        return AttentionShape(
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            rope=self.rope_parameters if self.no_rope_layers[layer] else None,
            window=self.sliding_window[layer],
        )


def read(reader: ConfigReader) -> SmolLM3Config:
    """Read a SmolLM3Config."""
    rotates = _read_rotates(reader)
    common = read_common(
        reader, theta=DEFAULT_THETA, tied=True, biases=("attention_bias", "mlp_bias")
    )
    window = read_window(reader, 0)
    window = window if reader.flag("use_sliding_window", False) else 0
    return SmolLM3Config(
        **common,
        attention_bias=reader.flag("attention_bias", False),
        mlp_bias=reader.flag("mlp_bias", False),
        sliding_window=read_windows(reader, common, window, lambda layer: not rotates(layer)),
        no_rope_layers=tuple(rotates(layer) for layer in range(common["num_hidden_layers"])),
    )


def _read_rotates(reader: ConfigReader) -> Callable[[int], bool]:
    """Return which layers rotate: ``no_rope_layers`` holds a 1 for each that does; without it
    every ``no_rope_layer_interval``-th layer does not."""
    interval = reader.integer("no_rope_layer_interval", DEFAULT_INTERVAL)
    flags = reader.get("no_rope_layers")
    if flags is None:
        return lambda layer: (layer + 1) % interval != 0
    layers = reader.get("num_hidden_layers")
    if (
        isinstance(flags, list)
        and all(flag in (0, 1) for flag in flags)
        and is_integer(layers)
        and len(flags) >= layers > 0
    ):
        return lambda layer: bool(flags[layer])
    reader.problem(
        f"no_rope_layers: got {shorten(flags)}, expected 0 or 1 for each of the "
        f"{shorten(layers)} layers"
    )
    return lambda layer: True


SMOLLM3 = Family(
    config=SmolLM3Config,
    read=read,
    harmless=frozenset({"max_window_layers"}),  # not used by its windows
    gguf_architecture="smollm3",
    gguf_layer_names=GGUF_BLOCK,
    gguf_interleaved=frozenset({"attn_q.weight", "attn_k.weight"}),
)
