"""Granite 4's models of several kinds of layers, those of them that have attention alone and no
experts: Granite's blocks, in which gate and up are halves of one matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import ConfigReader, shorten
from edge_llm.llm.decoder import FULL, AttentionShape, read_common
from edge_llm.llm.families.family import Family
from edge_llm.llm.families.granite import read_multipliers
from edge_llm.llm.rope import Rope

DEFAULT_EXPERTS = 8
ATTENTION = ("attention", FULL)  # as transformers 4 and 5 name it
STATE_SPACES = ("mamba", "linear_attention")


@dataclass(frozen=True, slots=True, kw_only=True)
class GraniteMoeHybridConfig:
    """Facts of a GraniteMoeHybridConfig; ``intermediate_size`` is its ``shared_intermediate_size``,
    ``logits_scaling`` divides the logits."""

    model_type: ClassVar[str] = "granitemoehybrid"

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


def read(reader: ConfigReader) -> GraniteMoeHybridConfig:
    """Read a GraniteMoeHybridConfig."""
    common = read_common(reader, biases=("attention_bias",))
    if reader.get("num_local_experts") is None:
        reader.problem(
            f"num_local_experts: missing, which means {DEFAULT_EXPERTS}, expected 0: experts of "
            "this family are not supported"
        )
    _check_layers(reader, common["num_hidden_layers"])
    position = reader.get("position_embedding_type")
    if position != "rope":
        reader.problem(
            f"position_embedding_type: got {shorten(position)}, expected 'rope': models of "
            "attention alone without positions are not supported"
        )
    common["intermediate_size"] = reader.integer("shared_intermediate_size", 1024)
    return GraniteMoeHybridConfig(
        **common,
        **read_multipliers(reader),
        attention_bias=reader.flag("attention_bias", False),
    )


def _check_layers(reader: ConfigReader, layers: int) -> None:
    kinds = reader.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == layers and set(kinds) <= set(ATTENTION):
        return
    why = ""
    if kinds is None or (isinstance(kinds, list) and any(kind in STATE_SPACES for kind in kinds)):
        why = ": state spaces (Mamba 2) are not supported"
    reader.problem(
        f"layer_types: got {shorten(kinds)}, expected 'attention' for each of {layers} layers{why}"
    )


GRANITEMOEHYBRID = Family(
    config=GraniteMoeHybridConfig,
    read=read,
    defaults={"intermediate_size": 11_008},  # of experts
    # Of the parts that these models have not, and of training.
    harmless=frozenset(
        {
            "init_method",
            "mamba_chunk_size",
            "mamba_conv_bias",
            "mamba_d_conv",
            "mamba_d_head",
            "mamba_d_state",
            "mamba_expand",
            "mamba_n_groups",
            "mamba_n_heads",
            "mamba_proj_bias",
            "normalization_function",
            "num_experts_per_tok",
            "output_router_logits",
            "router_aux_loss_coef",
            "time_step_limit",
        }
    ),
    # In GGUF these are models of the family granite.
)
