"""OLMo 3: OLMo 2's blocks, three layers with a window to each that sees all before; YaRN scales the
rope of the latter alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import ConfigReader
from edge_llm.llm.decoder import (
    FULL,
    SLIDING,
    AttentionShape,
    read_common,
    read_sliding,
    read_window,
    read_windows,
)
from edge_llm.llm.families.family import GGUF_KEYS, GGUF_SLIDING, GGUF_WINDOW, Family
from edge_llm.llm.families.olmo2 import OLMO2
from edge_llm.llm.rope import Rope, read_rope, read_ropes

DEFAULT_THETA = 500_000.0
DEFAULT_WINDOW = 4096
PATTERN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Olmo3Config:
    """Facts of an Olmo3Config; ``sliding_window`` has one of each layer, 0 for none.
    ``rope_parameters`` is the rope of the layers without a window, ``rope_local`` that of the
    others; ``sliding`` says which these are, also where the window is no shorter than the
    context."""

    model_type: ClassVar[str] = "olmo3"

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
    rope_local: Rope
    tie_word_embeddings: bool
    attention_bias: bool
    sliding_window: tuple[int, ...]
    sliding: tuple[bool, ...]

    def attention(self, layer: int) -> AttentionShape:
        """Return what the attention of ``layer`` computes."""
        return AttentionShape(
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            rope=self.rope_local if self.sliding[layer] else self.rope_parameters,
            window=self.sliding_window[layer],
        )


def _slides(layer: int) -> bool:
    return (layer + 1) % PATTERN != 0


def read(reader: ConfigReader) -> Olmo3Config:
    """Read an Olmo3Config."""
    ropes = _read_ropes(reader)
    common = read_common(reader, norm_eps=1e-5, rope=ropes[FULL], biases=("attention_bias",))
    window = read_window(reader, DEFAULT_WINDOW)
    return Olmo3Config(
        **common,
        rope_local=ropes[SLIDING],
        attention_bias=reader.flag("attention_bias", False),
        sliding_window=read_windows(reader, common, window, _slides),
        sliding=read_sliding(reader, common, _slides),
    )


def _read_ropes(reader: ConfigReader) -> dict[str, Rope]:
    """Return the rope of each kind of layer. In the form of transformers 4 a scaling is that of the
    layers without a window alone."""
    heads = reader.integer("num_attention_heads")
    head_dim = reader.integer("head_dim", max(1, reader.integer("hidden_size") // heads))
    theta = reader.positive("rope_theta", DEFAULT_THETA)
    ropes = read_ropes(reader, head_dim, {FULL: theta, SLIDING: theta})
    if ropes is not None:
        return ropes
    full = read_rope(reader, head_dim, theta=theta)
    return {FULL: full, SLIDING: Rope(full.theta, head_dim)}


OLMO3 = Family(
    config=Olmo3Config,
    read=read,
    # GGUF files call these models olmo2, and have one rope, whose scaling is that of the layers
    # without a window; they tell them from OLMo 2 by the keys of the window.
    gguf_architecture="olmo2",
    gguf_keys=GGUF_KEYS | GGUF_WINDOW | GGUF_SLIDING,
    gguf_layer_names=OLMO2.gguf_layer_names,
)
