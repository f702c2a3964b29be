"""Qwen3 (dense): every query and key head is normalized before the rotation; explicit head_dim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import ConfigReader
from edge_llm.llm.decoder import AttentionShape, optional_window, read_common, read_windows
from edge_llm.llm.families.family import GGUF_BLOCK, Family
from edge_llm.llm.rope import Rope

DEFAULT_HEAD_DIM = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen3Config:
    """Facts of a Qwen3Config; ``sliding_window`` has one of each layer, 0 for none."""

    model_type: ClassVar[str] = "qwen3"

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


def read(reader: ConfigReader) -> Qwen3Config:
    """Read a Qwen3Config."""
    common = read_common(reader, head_dim=DEFAULT_HEAD_DIM, biases=("attention_bias",))
    return Qwen3Config(
        **common,
        attention_bias=reader.flag("attention_bias", False),
        sliding_window=read_windows(reader, common, *optional_window(reader)),
    )


QWEN3 = Family(
    config=Qwen3Config,
    read=read,
    gguf_architecture="qwen3",
    gguf_layer_names=GGUF_BLOCK
    | {
        "attn_q_norm.weight": "self_attn.q_norm.weight",
        "attn_k_norm.weight": "self_attn.k_norm.weight",
    },
)
