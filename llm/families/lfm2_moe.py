"""LFM2 with experts (8B-A1B): LFM2's layers, in all but the first of which a router sends each
token to a few of many small MLPs. Their scores are sigmoids; a bias decides which are chosen, and
no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import MAX_LAYERS, ConfigReader
from edge_llm.llm.decoder import read_common
from edge_llm.llm.families.family import GGUF_KEYS, Family
from edge_llm.llm.families.lfm2 import (
    DEFAULT_TAPS,
    DEFAULT_THETA,
    LFM2,
    Lfm2Config,
    read_convolves,
)
from edge_llm.program.ops import MAX_EXPERTS, MAX_TAPS

SIGMOID = 2  # in GGUF's expert_gating_func


@dataclass(frozen=True, slots=True, kw_only=True)
class Lfm2MoeConfig(Lfm2Config):
    """Facts of an Lfm2MoeConfig; the first ``num_dense_layers`` have an MLP as any."""

    model_type: ClassVar[str] = "lfm2_moe"

    moe_intermediate_size: int
    num_experts: int
    num_experts_per_tok: int
    num_dense_layers: int
    norm_topk_prob: bool
    use_expert_bias: bool
    routed_scaling_factor: float

    def layer_kind(self, layer: int) -> str:
        """Return whether a layer has experts."""
        return "dense" if layer < self.num_dense_layers else "sparse"


def read(reader: ConfigReader) -> Lfm2MoeConfig:
    """Read an Lfm2MoeConfig."""
    common = read_common(
        reader,
        norm_eps=1e-5,
        eps_key="norm_eps",
        theta=DEFAULT_THETA,
        tied=reader.flag("tie_embedding", True),
        experts=True,
    )
    reader.neutral("expert_gating_func", SIGMOID)
    experts = reader.integer("num_experts", 32, high=MAX_EXPERTS)
    return Lfm2MoeConfig(
        **common,
        conv_bias=reader.flag("conv_bias", False),
        conv_L_cache=reader.integer("conv_L_cache", DEFAULT_TAPS, high=MAX_TAPS),
        convolves=read_convolves(reader, common["num_hidden_layers"]),
        moe_intermediate_size=reader.integer("moe_intermediate_size", 1792),
        num_experts=experts,
        num_experts_per_tok=reader.integer("num_experts_per_tok", 4, high=experts),
        num_dense_layers=reader.integer("num_dense_layers", 2, low=0, high=MAX_LAYERS),
        norm_topk_prob=reader.flag("norm_topk_prob", True),
        use_expert_bias=reader.flag("use_expert_bias", True),
        routed_scaling_factor=reader.positive("routed_scaling_factor", 1.0),
    )


LFM2_MOE = Family(
    config=Lfm2MoeConfig,
    read=read,
    harmless=LFM2.harmless | {"output_router_logits"},
    squeezed=LFM2.squeezed,
    gguf_architecture="lfm2moe",
    gguf_keys=GGUF_KEYS
    | {
        "conv_L_cache": "shortconv.l_cache",
        "expert_gating_func": "expert_gating_func",
        "moe_intermediate_size": "expert_feed_forward_length",
        "num_dense_layers": "leading_dense_block_count",
        "num_experts": "expert_count",
        "num_experts_per_tok": "expert_used_count",
    },
    gguf_names=LFM2.gguf_names,
    gguf_layer_names={
        **LFM2.gguf_layer_names,
        "ffn_gate_inp.weight": "feed_forward.gate.weight",
        "exp_probs_b.bias": "feed_forward.expert_bias",
        "ffn_gate_exps.weight": "feed_forward.experts.w1",
        "ffn_up_exps.weight": "feed_forward.experts.w3",
        "ffn_down_exps.weight": "feed_forward.experts.w2",
    },
    gguf_implied=LFM2.gguf_implied,
)
