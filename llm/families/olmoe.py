"""OLMoE (1B-7B): OLMo 2's norms of all heads together, Llama's order of norms around attention and
MLP, and in every layer a router that sends each token to a few of many small MLPs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import ConfigReader
from edge_llm.llm.decoder import AttentionShape, read_common, read_windows
from edge_llm.llm.families.family import GGUF_BLOCK, GGUF_EXPERTS, GGUF_KEYS, Family
from edge_llm.llm.rope import Rope
from edge_llm.program.ops import MAX_EXPERTS


@dataclass(frozen=True, slots=True, kw_only=True)
class OlmoeConfig:
    """Facts of an OlmoeConfig; ``intermediate_size`` is that of each expert."""

    model_type: ClassVar[str] = "olmoe"

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_experts: int
    num_experts_per_tok: int
    norm_topk_prob: bool
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


def read(reader: ConfigReader) -> OlmoeConfig:
    """Read an OlmoeConfig."""
    common = read_common(reader, norm_eps=1e-5, biases=("attention_bias",), experts=True)
    read_windows(reader, common)
    reader.neutral("clip_qkv", None)
    key = "num_local_experts" if reader.absent("num_experts") else "num_experts"
    experts = reader.integer(key, 64, high=MAX_EXPERTS)
    return OlmoeConfig(
        **common,
        num_experts=experts,
        num_experts_per_tok=reader.integer("num_experts_per_tok", 8, high=experts),
        norm_topk_prob=reader.flag("norm_topk_prob", False),
        attention_bias=reader.flag("attention_bias", False),
    )


OLMOE = Family(
    config=OlmoeConfig,
    read=read,
    harmless=frozenset({"output_router_logits", "router_aux_loss_coef"}),
    gguf_architecture="olmoe",
    gguf_keys=GGUF_KEYS
    | {"num_experts": "expert_count", "num_experts_per_tok": "expert_used_count"},
    gguf_layer_names=GGUF_BLOCK
    | GGUF_EXPERTS
    | {
        "attn_q_norm.weight": "self_attn.q_norm.weight",
        "attn_k_norm.weight": "self_attn.k_norm.weight",
    },
    # The reader of such files never divides by the sum.
    gguf_implied=lambda values: {"norm_topk_prob": False},
)
