"""Phi-3.5-MoE and Phi-mini-MoE: Llama's blocks with layer norms and biases, and in every layer a
router that takes two experts, each with its share in a softmax over those that come near it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import ConfigReader
from edge_llm.llm.decoder import AttentionShape, read_common, read_window, read_windows
from edge_llm.llm.families.family import GGUF_BLOCK, GGUF_KEYS, GGUF_WINDOW, Family
from edge_llm.llm.rope import Rope, read_rope
from edge_llm.program.ops import MAX_EXPERTS

DEFAULT_THETA = 1_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PhimoeConfig:
    """Facts of a PhimoeConfig; ``intermediate_size`` is that of each expert, ``sliding_window`` has
    one of each layer, 0 for none."""

    model_type: ClassVar[str] = "phimoe"

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_local_experts: int
    num_experts_per_tok: int
    router_jitter_noise: float
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_parameters: Rope
    tie_word_embeddings: bool
    attention_bias: bool
    lm_head_bias: bool
    sliding_window: tuple[int, ...]

    def derived(self) -> Mapping[str, int | float]:
        """Return what follows from several fields."""
        return {"2 * router_jitter_noise": 2 * self.router_jitter_noise}

    def attention(self, layer: int) -> AttentionShape:
        """Return what the attention of ``layer`` computes."""
        return AttentionShape(
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            rope=self.rope_parameters,
            window=self.sliding_window[layer],
        )


def read(reader: ConfigReader) -> PhimoeConfig:
    """Read a PhimoeConfig."""
    dim, heads = reader.integer("hidden_size"), reader.integer("num_attention_heads")
    head_dim = reader.integer("head_dim", max(1, dim // heads))
    rope = read_rope(reader, head_dim, theta=DEFAULT_THETA, mscales=True)
    common = read_common(reader, norm_eps=1e-5, rope=rope, biases=("attention_bias",), experts=True)
    reader.neutral("num_experts_per_tok", 2)  # the router is made for two
    return PhimoeConfig(
        **common,
        num_local_experts=reader.integer("num_local_experts", 16, low=2, high=MAX_EXPERTS),
        num_experts_per_tok=2,
        router_jitter_noise=reader.positive("router_jitter_noise", 0.01),
        attention_bias=reader.flag("attention_bias", False),
        lm_head_bias=reader.flag("lm_head_bias", False),
        sliding_window=read_windows(reader, common, read_window(reader, 0)),
    )


PHIMOE = Family(
    config=PhimoeConfig,
    read=read,
    harmless=frozenset(
        {
            "hidden_dropout",
            "input_jitter_noise",  # of training
            "original_max_position_embeddings",  # without LongRoPE
            "output_router_logits",
            "router_aux_loss_coef",
        }
    ),
    gguf_architecture="phimoe",
    gguf_keys=GGUF_KEYS
    | GGUF_WINDOW
    | {"num_local_experts": "expert_count", "num_experts_per_tok": "expert_used_count"},
    gguf_names={"output.bias": "lm_head.bias", "output_norm.bias": "model.norm.bias"},
    gguf_layer_names=GGUF_BLOCK
    | {
        "attn_norm.bias": "input_layernorm.bias",
        "attn_q.bias": "self_attn.q_proj.bias",
        "attn_k.bias": "self_attn.k_proj.bias",
        "attn_v.bias": "self_attn.v_proj.bias",
        "attn_output.bias": "self_attn.o_proj.bias",
        "ffn_norm.bias": "post_attention_layernorm.bias",
        "ffn_gate_inp.weight": "block_sparse_moe.gate.weight",
        "ffn_gate_exps.weight": "block_sparse_moe.experts.w1",
        "ffn_up_exps.weight": "block_sparse_moe.experts.w3",
        "ffn_down_exps.weight": "block_sparse_moe.experts.w2",
    },
    gguf_implied=lambda values: {"attention_bias": True, "lm_head_bias": True},
)
