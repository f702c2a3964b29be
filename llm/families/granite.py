"""Granite 3 and 4, the models without experts and state spaces: Llama's blocks with multipliers of
the embedding, of the scores of attention, of what each part adds to the stream, and of the logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypedDict

from edge_llm.llm.config import ConfigReader, is_integer
from edge_llm.llm.decoder import AttentionShape, read_common, read_windows
from edge_llm.llm.families.family import GGUF_BLOCK, GGUF_KEYS, Family
from edge_llm.llm.rope import Rope


@dataclass(frozen=True, slots=True, kw_only=True)
class GraniteConfig:
    """Facts of a GraniteConfig; ``logits_scaling`` divides the logits."""

    model_type: ClassVar[str] = "granite"

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
    embedding_multiplier: float
    attention_multiplier: float
    residual_multiplier: float
    logits_scaling: float

    def attention(self, layer: int) -> AttentionShape:
        """Return what the attention of ``layer`` computes."""
        return AttentionShape(
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            rope=self.rope_parameters,
            scale=self.attention_multiplier,
        )


class Multipliers(TypedDict):
    """The multipliers that Granite's configs have."""

    embedding_multiplier: float
    attention_multiplier: float
    residual_multiplier: float
    logits_scaling: float


def read_multipliers(reader: ConfigReader) -> Multipliers:
    """Read the multipliers; each is 1 where the config does not state it."""
    return Multipliers(
        embedding_multiplier=reader.positive("embedding_multiplier", 1.0),
        attention_multiplier=reader.positive("attention_multiplier", 1.0),
        residual_multiplier=reader.positive("residual_multiplier", 1.0),
        logits_scaling=reader.positive("logits_scaling", 1.0),
    )


def read(reader: ConfigReader) -> GraniteConfig:
    """Read a GraniteConfig."""
    reader.neutral("rope_finetuned", True)  # GGUF's switch of the rotation
    common = read_common(reader, biases=("attention_bias", "mlp_bias"))
    read_windows(reader, common)
    return GraniteConfig(
        **common,
        **read_multipliers(reader),
        attention_bias=reader.flag("attention_bias", False),
        mlp_bias=reader.flag("mlp_bias", False),
    )


def implied_scale(values: Mapping[str, object]) -> Mapping[str, object]:
    """Return the scale of scores that llama.cpp takes where a file has none."""
    head_dim = values["head_dim"]
    return {"attention_multiplier": head_dim**-0.5 if is_integer(head_dim) and head_dim else None}


GGUF_MULTIPLIERS = {
    "embedding_multiplier": "embedding_scale",
    "attention_multiplier": "attention.scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
    "rope_finetuned": "rope.scaling.finetuned",
}
GRANITE = Family(
    config=GraniteConfig,
    read=read,
    gguf_architecture="granite",
    gguf_keys=GGUF_KEYS | GGUF_MULTIPLIERS,
    # Files made of granitemoehybrid models without experts and state spaces say how large these
    # would be.
    gguf_harmless=frozenset(
        {
            "expert_feed_forward_length",
            "expert_shared_feed_forward_length",
            *(
                f"ssm.{name}"
                for name in (
                    "conv_kernel",
                    "group_count",
                    "inner_size",
                    "state_size",
                    "time_step_rank",
                )
            ),
        }
    ),
    gguf_layer_names=GGUF_BLOCK,
    gguf_interleaved=frozenset({"attn_q.weight", "attn_k.weight"}),
    gguf_implied=implied_scale,
)
