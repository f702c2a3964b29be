"""gpt-oss: experts whose gates are clamped, in every layer; heads with a sink; windows in every
second layer, the first among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import ConfigReader
from edge_llm.llm.decoder import AttentionShape, read_common, read_window, read_windows
from edge_llm.llm.families.family import (
    GGUF_BLOCK,
    GGUF_KEYS,
    GGUF_WINDOW,
    Family,
    Stacked,
)
from edge_llm.llm.rope import Rope
from edge_llm.program.ops import MAX_EXPERTS

DEFAULT_HEAD_DIM, DEFAULT_THETA, DEFAULT_WINDOW = 64, 150_000.0, 128


@dataclass(frozen=True, slots=True, kw_only=True)
class GptOssConfig:
    """Facts of a GptOssConfig; ``sliding_window`` has one of each layer, 0 for none."""

    model_type: ClassVar[str] = "gpt_oss"

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_local_experts: int
    num_experts_per_tok: int
    swiglu_alpha: float
    swiglu_limit: float
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


def read(reader: ConfigReader) -> GptOssConfig:
    """Read a GptOssConfig."""
    common = read_common(
        reader,
        head_dim=DEFAULT_HEAD_DIM,
        norm_eps=1e-5,
        theta=DEFAULT_THETA,
        biases=("attention_bias",),
        experts=True,
    )
    key = "num_experts" if reader.absent("num_local_experts") else "num_local_experts"
    experts = reader.integer(key, 128, high=MAX_EXPERTS)
    window = read_window(reader, DEFAULT_WINDOW)
    return GptOssConfig(
        **common,
        num_local_experts=experts,
        num_experts_per_tok=reader.integer("num_experts_per_tok", 4, high=experts),
        swiglu_alpha=reader.positive("swiglu_alpha", 1.702),
        swiglu_limit=reader.positive("swiglu_limit", 7.0),
        attention_bias=reader.flag("attention_bias", True),
        sliding_window=read_windows(reader, common, window, lambda layer: layer % 2 == 0),
    )


def _implied(values: Mapping[str, object]) -> Mapping[str, object]:
    return {"attention_bias": True, "rope_parameters": {"truncate": False}}


GPT_OSS = Family(
    config=GptOssConfig,
    read=read,
    harmless=frozenset(
        {
            "experts_per_token",
            "initial_context_length",
            "output_router_logits",
            "router_aux_loss_coef",
        }
    ),
    stacked={
        "mlp.experts.gate_up_proj": Stacked(
            ("gate_proj", "up_proj"), interleaved=True, transposed=True
        ),
        "mlp.experts.gate_up_proj_bias": Stacked(
            ("gate_proj_bias", "up_proj_bias"), interleaved=True
        ),
        "mlp.experts.down_proj": Stacked(("down_proj",), transposed=True),
    },
    gguf_architecture="gpt-oss",
    gguf_keys=GGUF_KEYS
    | GGUF_WINDOW
    | {
        "num_local_experts": "expert_count",
        "num_experts_per_tok": "expert_used_count",
    },
    gguf_layer_names={
        name: inner for name, inner in GGUF_BLOCK.items() if not name.startswith("ffn_")
    }
    | {
        "attn_q.bias": "self_attn.q_proj.bias",
        "attn_k.bias": "self_attn.k_proj.bias",
        "attn_v.bias": "self_attn.v_proj.bias",
        "attn_output.bias": "self_attn.o_proj.bias",
        "attn_sinks.weight": "self_attn.sinks",
        "post_attention_norm.weight": "post_attention_layernorm.weight",
        "ffn_gate_inp.weight": "mlp.router.weight",
        "ffn_gate_inp.bias": "mlp.router.bias",
        "ffn_gate_exps.weight": "mlp.experts.gate_proj",
        "ffn_up_exps.weight": "mlp.experts.up_proj",
        "ffn_down_exps.weight": "mlp.experts.down_proj",
        "ffn_gate_exps.bias": "mlp.experts.gate_proj_bias",
        "ffn_up_exps.bias": "mlp.experts.up_proj_bias",
        "ffn_down_exps.bias": "mlp.experts.down_proj_bias",
    },
    gguf_implied=_implied,
    gguf_harmless=frozenset({"expert_feed_forward_length"}),  # the tensors say it, too
)
