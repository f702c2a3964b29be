"""Qwen1.5 and Qwen2 with experts (A2.7B, 57B-A14B): Qwen2's attention, and in most layers a router
that sends each token to a few of many small MLPs, beside one that all tokens share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import ConfigReader
from edge_llm.llm.decoder import AttentionShape, read_common, read_window, read_windows
from edge_llm.llm.families.family import GGUF_BLOCK, GGUF_EXPERTS, GGUF_KEYS, GGUF_SHARED, Family
from edge_llm.llm.families.qwen3_moe import read_dense_layers
from edge_llm.llm.rope import Rope
from edge_llm.program.ops import MAX_EXPERTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen2MoeConfig:
    """Facts of a Qwen2MoeConfig; ``sliding_window`` has one of each layer, 0 for none.
    ``mlp_only_layers`` are all layers without experts."""

    model_type: ClassVar[str] = "qwen2_moe"

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    moe_intermediate_size: int
    shared_expert_intermediate_size: int
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
    qkv_bias: bool
    sliding_window: tuple[int, ...]
    mlp_only_layers: frozenset[int]

    def layer_kind(self, layer: int) -> str:
        """Return whether a layer has experts."""
        return "dense" if layer in self.mlp_only_layers else "sparse"

    def attention(self, layer: int) -> AttentionShape:
        """Return what the attention of ``layer`` computes."""
        return AttentionShape(
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            rope=self.rope_parameters,
            window=self.sliding_window[layer],
        )


def read(reader: ConfigReader) -> Qwen2MoeConfig:
    """Read a Qwen2MoeConfig."""
    common = read_common(reader, experts=True)
    key = "num_local_experts" if reader.absent("num_experts") else "num_experts"
    experts = reader.integer(key, 60, high=MAX_EXPERTS)
    last = reader.integer("max_window_layers", 28, low=0)
    slides = reader.flag("use_sliding_window", False)
    window = read_window(reader, 4096) if slides else 0
    reader.get("sliding_window")  # which is of no account where it is off
    return Qwen2MoeConfig(
        **common,
        moe_intermediate_size=reader.integer("moe_intermediate_size", 1408),
        shared_expert_intermediate_size=reader.integer("shared_expert_intermediate_size", 5632),
        num_experts=experts,
        num_experts_per_tok=reader.integer("num_experts_per_tok", 4, high=experts),
        norm_topk_prob=reader.flag("norm_topk_prob", False),
        qkv_bias=reader.flag("qkv_bias", True),
        sliding_window=read_windows(
            reader, common, window, lambda layer: layer % 2 == 0 and layer < last
        ),
        mlp_only_layers=read_dense_layers(reader, common["num_hidden_layers"]),
    )


QWEN2_MOE = Family(
    config=Qwen2MoeConfig,
    read=read,
    harmless=frozenset({"output_router_logits", "router_aux_loss_coef"}),
    gguf_architecture="qwen2moe",
    gguf_keys=GGUF_KEYS
    | {
        "moe_intermediate_size": "expert_feed_forward_length",
        "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
        "num_experts": "expert_count",
        "num_experts_per_tok": "expert_used_count",
    },
    gguf_layer_names=GGUF_BLOCK
    | GGUF_EXPERTS
    | GGUF_SHARED
    | {
        "attn_q.bias": "self_attn.q_proj.bias",
        "attn_k.bias": "self_attn.k_proj.bias",
        "attn_v.bias": "self_attn.v_proj.bias",
    },
)
