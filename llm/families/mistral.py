"""Mistral 7B: Llama's blocks with a sliding window in every layer (none from v0.2 on), and Mistral
Small 3.1 and 3.2, without their eyes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import ConfigReader
from edge_llm.llm.decoder import AttentionShape, read_common, read_window, read_windows
from edge_llm.llm.families.family import GGUF_BLOCK, GGUF_KEYS, GGUF_WINDOW, Family
from edge_llm.llm.rope import Rope

DEFAULT_WINDOW = 4096
EYES = re.compile(r"(model\.)?(vision_tower|multi_modal_projector)\..*")


@dataclass(frozen=True, slots=True, kw_only=True)
class MistralConfig:
    """Facts of a MistralConfig; ``sliding_window`` has one of each layer, 0 for none."""

    model_type: ClassVar[str] = "mistral"

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

    def attention(self, layer: int) -> AttentionShape:
        """Return what the attention of ``layer`` computes."""
        return AttentionShape(
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            rope=self.rope_parameters,
            window=self.sliding_window[layer],
        )


def read(reader: ConfigReader) -> MistralConfig:
    """Read a MistralConfig."""
    common = read_common(reader)
    window = read_window(reader, DEFAULT_WINDOW)
    return MistralConfig(**common, sliding_window=read_windows(reader, common, window))


MISTRAL = Family(
    config=MistralConfig,
    read=read,
    wrapper="mistral3",
    leftovers=EYES,
    # GGUF files call these models llamas, and are read as such without a window.
    gguf_architecture="llama",
    gguf_keys=GGUF_KEYS | GGUF_WINDOW,
    gguf_layer_names=GGUF_BLOCK,
    gguf_interleaved=frozenset({"attn_q.weight", "attn_k.weight"}),
)
