"""Qwen2 and Qwen2.5: biases on queries, keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import ConfigReader
from edge_llm.llm.decoder import AttentionShape, optional_window, read_common, read_windows
from edge_llm.llm.families.family import GGUF_BLOCK, Family
from edge_llm.llm.rope import Rope


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen2Config:
    """Facts of a Qwen2Config; ``sliding_window`` has one of each layer, 0 for none."""

    model_type: ClassVar[str] = "qwen2"

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


def read(reader: ConfigReader) -> Qwen2Config:
    """Read a Qwen2Config."""
    reader.neutral("use_mrope", False)  # the vision models' rotation
    common = read_common(reader)
    windows = read_windows(reader, common, *optional_window(reader))
    return Qwen2Config(**common, sliding_window=windows)


QWEN2 = Family(
    config=Qwen2Config,
    read=read,
    gguf_architecture="qwen2",
    gguf_layer_names=GGUF_BLOCK
    | {
        "attn_q.bias": "self_attn.q_proj.bias",
        "attn_k.bias": "self_attn.k_proj.bias",
        "attn_v.bias": "self_attn.v_proj.bias",
    },
)
