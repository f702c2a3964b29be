"""Phi-3, Phi-3.5 and Phi-4 mini: one matrix for queries, keys and values, one for gate and up;
LongRoPE, a rotation of part of each head, and a sliding window where the config says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import ConfigReader
from edge_llm.llm.decoder import AttentionShape, read_common, read_window, read_windows
from edge_llm.llm.families.family import GGUF_KEYS, GGUF_WINDOW, Family
from edge_llm.llm.rope import Rope


@dataclass(frozen=True, slots=True, kw_only=True)
class Phi3Config:
    """Facts of a Phi3Config; ``sliding_window`` has one of each layer, 0 for none."""

    model_type: ClassVar[str] = "phi3"

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


def read(reader: ConfigReader) -> Phi3Config:
    """Read a Phi3Config."""
    reader.neutral("lm_head_bias", False)
    reader.neutral("full_attn_mod", 1)  # every layer attends alike
    reader.neutral("interpolate_factor", 1)
    common = read_common(reader, norm_eps=1e-5, partial_rotary=True)
    return Phi3Config(**common, sliding_window=read_windows(reader, common, read_window(reader, 0)))


PHI3 = Family(
    config=Phi3Config,
    read=read,
    # dropout of training; the length that LongRoPE extends, without LongRoPE
    harmless=frozenset({"embd_pdrop", "resid_pdrop", "original_max_position_embeddings"}),
    gguf_architecture="phi3",
    gguf_keys=GGUF_KEYS | GGUF_WINDOW,
    gguf_layer_names={
        "attn_norm.weight": "input_layernorm.weight",
        "attn_qkv.weight": "self_attn.qkv_proj.weight",
        "attn_output.weight": "self_attn.o_proj.weight",
        "ffn_norm.weight": "post_attention_layernorm.weight",
        "ffn_up.weight": "mlp.gate_up_proj.weight",
        "ffn_down.weight": "mlp.down_proj.weight",
    },
)
