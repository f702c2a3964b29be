"""Qwen3.5 and 3.6 with experts (35B-A3B), their text models: the layers of Qwen3.5, whose MLPs are
a few of many small ones for each token, beside one that all tokens share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

from edge_llm.llm.config import ConfigReader
from edge_llm.llm.families.family import GGUF_EXPERTS, GGUF_KEYS, GGUF_SHARED, Family, Stacked
from edge_llm.llm.families.qwen3_5_text import (
    GGUF_FOLDED_KEYS,
    GGUF_LAYER,
    HARMLESS,
    LEFTOVERS,
    NORMS,
    SQUEEZED,
    Qwen35TextConfig,
    gguf_order,
    implied,
    logarithm,
    read_text,
    unused,
)
from edge_llm.program.ops import MAX_EXPERTS

DEFAULT_FFN = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen35MoeTextConfig(Qwen35TextConfig):
    """Facts of a Qwen3_5MoeTextConfig; ``intermediate_size`` is of no MLP that it has."""

    model_type: ClassVar[str] = "qwen3_5_moe_text"

    moe_intermediate_size: int
    shared_expert_intermediate_size: int
    num_experts: int
    num_experts_per_tok: int


def read(reader: ConfigReader) -> Qwen35MoeTextConfig:
    """Read a Qwen3_5MoeTextConfig."""
    text = read_text(reader, experts=True)
    reader.neutral("norm_topk_prob", True)
    key = "num_local_experts" if reader.absent("num_experts") else "num_experts"
    experts = reader.integer(key, 256, high=MAX_EXPERTS)
    return Qwen35MoeTextConfig(
        **{field.name: getattr(text, field.name) for field in fields(text)},
        moe_intermediate_size=reader.integer("moe_intermediate_size", DEFAULT_FFN),
        shared_expert_intermediate_size=reader.integer(
            "shared_expert_intermediate_size", DEFAULT_FFN
        ),
        num_experts=experts,
        num_experts_per_tok=reader.integer("num_experts_per_tok", 8, high=experts),
    )


def _implied(values: Mapping[str, object]) -> Mapping[str, object]:
    shared = values["intermediate_size"]  # under whose name the file has it
    return {**implied(values), "shared_expert_intermediate_size": shared}


QWEN3_5_MOE_TEXT = Family(
    config=Qwen35MoeTextConfig,
    read=read,
    wrapper="qwen3_5_moe",
    defaults={"intermediate_size": DEFAULT_FFN},
    harmless=HARMLESS | {"output_router_logits", "router_aux_loss_coef"},
    leftovers=LEFTOVERS,
    unused=unused,
    less_one=NORMS,
    stacked={
        "mlp.experts.gate_up_proj": Stacked(("gate_proj", "up_proj")),
        "mlp.experts.down_proj": Stacked(("down_proj",)),
    },
    gguf_architecture="qwen35moe",
    gguf_keys=GGUF_KEYS
    | GGUF_FOLDED_KEYS
    | {
        "intermediate_size": "expert_shared_feed_forward_length",
        "moe_intermediate_size": "expert_feed_forward_length",
        "num_experts": "expert_count",
        "num_experts_per_tok": "expert_used_count",
    },
    gguf_harmless=frozenset({"feed_forward_length"}),
    gguf_layer_names=GGUF_LAYER | GGUF_EXPERTS | GGUF_SHARED,
    gguf_order=gguf_order,
    gguf_values={"ssm_a": logarithm},
    gguf_implied=_implied,
    squeezed=SQUEEZED,
)
