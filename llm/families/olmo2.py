"""OLMo 2: attention and MLP are normalized after they are computed, not before; the heads of the
queries are normalized together before the rotation, and so are those of the keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import ConfigReader
from edge_llm.llm.decoder import AttentionShape, read_common, read_windows
from edge_llm.llm.families.family import GGUF_BLOCK, Family
from edge_llm.llm.rope import Rope


@dataclass(frozen=True, slots=True, kw_only=True)
class Olmo2Config:
    """Facts of an Olmo2Config."""

    model_type: ClassVar[str] = "olmo2"

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

    def attention(self, layer: int) -> AttentionShape:
        """Return what the attention of ``layer`` computes."""
        return AttentionShape(
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            rope=self.rope_parameters,
        )


def read(reader: ConfigReader) -> Olmo2Config:
    """Read an Olmo2Config."""
    common = read_common(reader, norm_eps=1e-5, biases=("attention_bias",))
    read_windows(reader, common)
    return Olmo2Config(**common, attention_bias=reader.flag("attention_bias", False))


OLMO2 = Family(
    config=Olmo2Config,
    read=read,
    gguf_architecture="olmo2",
    gguf_layer_names={
        name: inner for name, inner in GGUF_BLOCK.items() if not name.endswith("_norm.weight")
    }
    | {
        "attn_q_norm.weight": "self_attn.q_norm.weight",
        "attn_k_norm.weight": "self_attn.k_norm.weight",
        "post_attention_norm.weight": "post_attention_layernorm.weight",
        "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
    },
)
