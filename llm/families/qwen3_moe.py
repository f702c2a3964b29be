"""Qwen3 with experts (30B-A3B, Coder): Qwen3's attention, and in most layers a router that sends
each token to a few of many small MLPs; the other layers have an MLP as any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import ConfigReader, is_integer, shorten
from edge_llm.llm.decoder import AttentionShape, optional_window, read_common, read_windows
from edge_llm.llm.families.family import GGUF_BLOCK, GGUF_EXPERTS, GGUF_KEYS, Family
from edge_llm.llm.rope import Rope
from edge_llm.program.ops import MAX_EXPERTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen3MoeConfig:
    """Facts of a Qwen3MoeConfig; ``sliding_window`` has one of each layer, 0 for none.
    ``mlp_only_layers`` are all layers without experts."""

    model_type: ClassVar[str] = "qwen3_moe"

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    moe_intermediate_size: int
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


def read(reader: ConfigReader) -> Qwen3MoeConfig:
    """Read a Qwen3MoeConfig."""
    common = read_common(reader, biases=("attention_bias",), experts=True)
    reader.neutral("use_qk_norm", True)
    reader.neutral("shared_expert_intermediate_size", 0)
    reader.neutral("qkv_bias", False)
    key = "num_local_experts" if reader.absent("num_experts") else "num_experts"
    experts = reader.integer(key, 128, high=MAX_EXPERTS)
    return Qwen3MoeConfig(
        **common,
        moe_intermediate_size=reader.integer("moe_intermediate_size", 768),
        num_experts=experts,
        num_experts_per_tok=reader.integer("num_experts_per_tok", 8, high=experts),
        norm_topk_prob=reader.flag("norm_topk_prob", False),
        attention_bias=reader.flag("attention_bias", False),
        sliding_window=read_windows(reader, common, *optional_window(reader)),
        mlp_only_layers=read_dense_layers(reader, common["num_hidden_layers"]),
    )


def read_dense_layers(reader: ConfigReader, layers: int) -> frozenset[int]:
    """Return the layers without experts: those that the config names, and of the others all but
    every so many."""
    step = reader.integer("decoder_sparse_step", 1)
    named = reader.get("mlp_only_layers")
    named = [] if named is None else named
    if not isinstance(named, list) or not all(is_integer(n) and 0 <= n < layers for n in named):
        reader.problem(
            f"mlp_only_layers: got {shorten(named)}, expected some of the numbers 0 to {layers - 1}"
        )
        named = []
    return frozenset(named) | {layer for layer in range(layers) if (layer + 1) % step}


QWEN3_MOE = Family(
    config=Qwen3MoeConfig,
    read=read,
    harmless=frozenset({"output_router_logits", "router_aux_loss_coef"}),
    gguf_architecture="qwen3moe",
    gguf_keys=GGUF_KEYS
    | {
        "moe_intermediate_size": "expert_feed_forward_length",
        "num_experts": "expert_count",
        "num_experts_per_tok": "expert_used_count",
    },
    gguf_layer_names=GGUF_BLOCK
    | GGUF_EXPERTS
    | {
        "attn_q_norm.weight": "self_attn.q_norm.weight",
        "attn_k_norm.weight": "self_attn.k_norm.weight",
    },
    # The reader of such files always divides by the sum; and every layer has experts.
    gguf_implied=lambda values: {"norm_topk_prob": True},
)
