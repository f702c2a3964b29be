"""EXAONE 4: OLMo 2's blocks with norms of each head; with a window, three layers that have it and
rotate to each that sees all before and does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import ConfigReader
from edge_llm.llm.decoder import (
    AttentionShape,
    read_common,
    read_sliding,
    read_window,
    read_windows,
)
from edge_llm.llm.families.family import GGUF_KEYS, GGUF_SLIDING, GGUF_WINDOW, Family
from edge_llm.llm.families.olmo2 import OLMO2
from edge_llm.llm.rope import Rope

DEFAULT_WINDOW = 4096
PATTERN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Exaone4Config:
    """Facts of an Exaone4Config; ``sliding_window`` has one of each layer, 0 for none, and
    ``rotates`` says which of them do, also where the window is no shorter than the context."""

    model_type: ClassVar[str] = "exaone4"

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
    sliding_window: tuple[int, ...]
    rotates: tuple[bool, ...]

    def attention(self, layer: int) -> AttentionShape:
        """Return what the attention of ``layer`` computes."""
        return AttentionShape(
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            rope=self.rope_parameters if self.rotates[layer] else None,
            window=self.sliding_window[layer],
        )


def read(reader: ConfigReader) -> Exaone4Config:
    """Read an Exaone4Config."""
    common = read_common(reader, norm_eps=1e-5)
    window = read_window(reader, DEFAULT_WINDOW)
    pattern = _read_pattern(reader)

    def slides(layer: int) -> bool:
        return pattern > 0 and (layer + 1) % pattern != 0

    sliding = read_sliding(reader, common, slides)
    return Exaone4Config(
        **common,
        sliding_window=read_windows(reader, common, window, slides),
        rotates=sliding if window else (True,) * common["num_hidden_layers"],
    )


def _read_pattern(reader: ConfigReader) -> int:
    """Return the number of layers from one that sees all to the next; "LLLG", as published configs
    write it, has a letter for each. 0: there is no such pattern."""
    given = reader.get("sliding_window_pattern")
    if isinstance(given, str):
        fits = given.count("G") == 1 and given.endswith("G") and set(given) <= {"L", "G"}
        reader.require(fits, f"sliding_window_pattern: got {given!r:.40}, expected one as 'LLLG'")
        return max(len(given), 1)
    return reader.integer("sliding_window_pattern", PATTERN, low=0)


EXAONE4 = Family(
    config=Exaone4Config,
    read=read,
    gguf_architecture="exaone4",
    gguf_keys=GGUF_KEYS | GGUF_WINDOW | GGUF_SLIDING,
    gguf_layer_names=OLMO2.gguf_layer_names,
)
