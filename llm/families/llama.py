"""Llama 2 and 3.x, and the checkpoints that share their architecture (SmolLM2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import ConfigReader
from edge_llm.llm.decoder import AttentionShape, read_common, read_windows
from edge_llm.llm.families.family import GGUF_BLOCK, Family
from edge_llm.llm.rope import Rope


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig:
    """Facts of a LlamaConfig."""

    model_type: ClassVar[str] = "llama"

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

    def attention(self, layer: int) -> AttentionShape:
        """Return what the attention of ``layer`` computes."""
        return AttentionShape(
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            rope=self.rope_parameters,
        )


def read(reader: ConfigReader) -> LlamaConfig:
    """Read a LlamaConfig."""
    reader.neutral("rope_interleaved", False)  # SmolLM2 carries it
    common = read_common(reader, biases=("attention_bias", "mlp_bias"))
    read_windows(reader, common)
    return LlamaConfig(
        **common,
        attention_bias=reader.flag("attention_bias", False),
        mlp_bias=reader.flag("mlp_bias", False),
    )


LLAMA = Family(
    config=LlamaConfig,
    read=read,
    # tables that early checkpoints stored
    leftovers=re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"),
    gguf_architecture="llama",
    gguf_layer_names=GGUF_BLOCK,
    gguf_interleaved=frozenset({"attn_q.weight", "attn_k.weight"}),
)
