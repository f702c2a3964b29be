"""Granite 4's models of several kinds of layers: most fold what they have seen into one matrix a
head (Mamba-2), a few attend, often without positions; beside the MLP of every layer there may be
experts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypedDict

from edge_llm.llm.config import ConfigReader, is_integer, is_number, shorten
from edge_llm.llm.decoder import FULL, AttentionShape, StateSpaceShape, read_common
from edge_llm.llm.families.family import GGUF_BLOCK, GGUF_KEYS, Family, Stacked
from edge_llm.llm.families.granite import GGUF_MULTIPLIERS, implied_scale, read_multipliers
from edge_llm.llm.families.qwen3_5_text import logarithm
from edge_llm.llm.rope import Rope
from edge_llm.program.ops import MAX_EXPERTS, MAX_FOLD_DIM, MAX_HEADS, MAX_TAPS

DEFAULT_EXPERTS, DEFAULT_CHOSEN = 8, 2
DEFAULT_EXPERT_FFN = 11_008
ATTENTION = ("attention", FULL)  # as transformers 4 and 5 name it
STATE_SPACES = ("mamba", "linear_attention")
LONGEST_STEP = 2.0**127  # in place of infinity


@dataclass(frozen=True, slots=True, kw_only=True)
class GraniteMoeHybridConfig:
    """Facts of a GraniteMoeHybridConfig; ``intermediate_size`` is its ``shared_intermediate_size``,
    and its own ``intermediate_size``, that of experts, is ``expert_intermediate_size``.
    ``logits_scaling`` divides the logits. ``folds`` says of each layer whether it is a state space;
    ``rotates`` is whether attention has positions. Numbers of parts that a model has not are 0."""

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
    rotates: bool
    has_experts: bool
    num_local_experts: int
    num_experts_per_tok: int
    expert_intermediate_size: int
    folds: tuple[bool, ...]
    mamba_n_groups: int
    mamba_n_heads: int
    mamba_d_head: int
    mamba_d_state: int
    mamba_d_conv: int
    mamba_conv_bias: bool
    mamba_proj_bias: bool
    least_step: float
    most_step: float

    def attention(self, layer: int) -> AttentionShape | None:
        """Return what the attention of ``layer`` computes; None where it folds."""
        if self.folds[layer]:
            return None
        return AttentionShape(
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            rope=self.rope_parameters if self.rotates else None,
            scale=self.attention_multiplier,
        )

    @property
    def state_space(self) -> StateSpaceShape:
        """Return what the layers without attention compute."""
        return StateSpaceShape(
            key_heads=self.mamba_n_groups,
            heads=self.mamba_n_heads,
            k_dim=self.mamba_d_state,
            v_dim=self.mamba_d_head,
            taps=self.mamba_d_conv,
            least_step=self.least_step,
            most_step=self.most_step,
        )

    def layer_kind(self, layer: int) -> str:
        """Return whether a layer is a state space, and of how many groups: one, or several."""
        if not self.folds[layer]:
            return "attention"
        return "state space" if self.mamba_n_groups == 1 else "grouped state space"

    def derived(self) -> Mapping[str, int | float]:
        """Return the widths of the layers without attention."""
        values = self.mamba_n_heads * self.mamba_d_head
        keys = self.mamba_n_groups * self.mamba_d_state
        convolved = values + 2 * keys
        return {
            "mamba values": values,
            "mamba keys": keys,
            "mamba values, keys and queries": convolved,
            "mamba gate, values, keys, queries and steps": values + convolved + self.mamba_n_heads,
        }


class MambaKeys(TypedDict):
    """The fields of what state spaces compute."""

    mamba_n_groups: int
    mamba_n_heads: int
    mamba_d_head: int
    mamba_d_state: int
    mamba_d_conv: int
    mamba_conv_bias: bool
    mamba_proj_bias: bool
    least_step: float
    most_step: float


# The flags are what models with state spaces have, so that both share blueprints.
NO_MAMBA = MambaKeys(
    mamba_n_groups=1,
    mamba_n_heads=0,
    mamba_d_head=0,
    mamba_d_state=0,
    mamba_d_conv=0,
    mamba_conv_bias=True,
    mamba_proj_bias=False,
    least_step=0.0,
    most_step=0.0,
)


def read(reader: ConfigReader) -> GraniteMoeHybridConfig:
    """Read a GraniteMoeHybridConfig."""
    shared = reader.integer("shared_intermediate_size", 1024)
    common = read_common(reader, biases=("attention_bias",), ffn=shared, experts=True)
    reader.neutral("num_experts", 0)  # whose name here is another
    experts = reader.integer("num_local_experts", DEFAULT_EXPERTS, low=0, high=MAX_EXPERTS)
    chosen = reader.integer("num_experts_per_tok", DEFAULT_CHOSEN, low=0, high=MAX_EXPERTS)
    ffn = reader.integer("intermediate_size", DEFAULT_EXPERT_FFN)
    if experts:
        reader.require(
            1 <= chosen <= experts,
            f"num_experts_per_tok: got {chosen}, expected 1 to num_local_experts {experts}",
        )
    position = reader.get("position_embedding_type")
    if position not in (None, "rope", "nope"):
        reader.problem(
            f"position_embedding_type: got {shorten(position)}, expected 'rope' or 'nope'"
        )
    folds = _read_kinds(reader, common["num_hidden_layers"])
    return GraniteMoeHybridConfig(
        **common,
        **read_multipliers(reader),
        **(_read_mamba(reader, common["hidden_size"]) if any(folds) else NO_MAMBA),
        attention_bias=reader.flag("attention_bias", False),
        rotates=position == "rope",
        has_experts=experts > 0,
        num_local_experts=experts,
        num_experts_per_tok=chosen if experts else 0,
        expert_intermediate_size=ffn if experts else 0,
        folds=folds,
    )


def _read_kinds(reader: ConfigReader, layers: int) -> tuple[bool, ...]:
    kinds = reader.get("layer_types")
    if kinds is None:
        return (True,) * layers
    known = (*ATTENTION, *STATE_SPACES)
    if not isinstance(kinds, list) or len(kinds) != layers or any(k not in known for k in kinds):
        reader.problem(
            f"layer_types: got {shorten(kinds)}, expected 'mamba' or 'attention' for each of "
            f"{layers} layers"
        )
        return (True,) * layers
    return tuple(kind in STATE_SPACES for kind in kinds)


def _read_mamba(reader: ConfigReader, dim: int) -> MambaKeys:
    width = reader.integer("mamba_expand", 2) * dim
    heads = reader.integer("mamba_n_heads", 128, high=MAX_HEADS)
    head_dim = max(1, width // heads)
    if reader.get("mamba_d_head") != "auto":
        head_dim = reader.integer("mamba_d_head", head_dim, high=MAX_FOLD_DIM)
    reader.require(
        heads * head_dim == width,
        f"mamba_d_head: got {head_dim}, expected mamba_expand * hidden_size {width} / "
        f"mamba_n_heads {heads}",
    )
    groups = reader.integer("mamba_n_groups", 1, high=MAX_HEADS)
    reader.require(
        heads % groups == 0,
        f"mamba_n_heads: got {heads}, expected a multiple of mamba_n_groups {groups}",
    )
    least, most = _read_limits(reader)
    return MambaKeys(
        mamba_n_groups=groups,
        mamba_n_heads=heads,
        mamba_d_head=head_dim,
        mamba_d_state=reader.integer("mamba_d_state", 256, high=MAX_FOLD_DIM),
        mamba_d_conv=reader.integer("mamba_d_conv", 4, high=MAX_TAPS),
        mamba_conv_bias=reader.flag("mamba_conv_bias", True),
        mamba_proj_bias=reader.flag("mamba_proj_bias", False),
        least_step=least,
        most_step=most,
    )


def _read_limits(reader: ConfigReader) -> tuple[float, float]:
    """Return the least and the most that a step can be."""
    given = reader.get("time_step_limit")
    if given is None:
        return 0.0, LONGEST_STEP
    ends = [_number(end) for end in given] if isinstance(given, list) else []
    if len(ends) != 2 or not 0.0 <= ends[0] <= ends[1]:
        reader.problem(
            f"time_step_limit: got {shorten(given)}, expected two numbers, neither below 0 nor the "
            "second below the first"
        )
        return 0.0, LONGEST_STEP
    return min(ends[0], LONGEST_STEP), min(ends[1], LONGEST_STEP)


def _number(value: object) -> float:
    """Return a number, or NaN for what is none. transformers 5 writes infinity as an object."""
    if value == {"__float__": "Infinity"}:
        return math.inf
    try:
        return float(value) if is_number(value) else math.nan
    except OverflowError:
        return math.inf


def _implied(values: Mapping[str, object]) -> Mapping[str, object]:
    """Return what files say in another way: heads of keys and values for each layer, none where it
    folds; the width of all heads of a state space; and whether positions rotate."""
    rotates = values["rope_finetuned"] is not False
    implied = dict(implied_scale(values))
    implied |= {
        "num_local_experts": 0,
        "num_experts_per_tok": 0,
        "position_embedding_type": "rope" if rotates else "nope",
    }
    heads = values["num_key_value_heads"]
    if isinstance(heads, list) and len(set(heads) - {0}) == 1:
        implied["num_key_value_heads"] = next(count for count in heads if count)
        implied["layer_types"] = [ATTENTION[0] if count else STATE_SPACES[0] for count in heads]
    elif is_integer(heads) and heads:
        layers = values["num_hidden_layers"]
        implied["layer_types"] = [ATTENTION[0]] * layers if is_integer(layers) else None
    inner, dim = values["mamba_inner_size"], values["hidden_size"]
    if is_integer(inner) and is_integer(dim) and dim > 0:
        implied["mamba_expand"] = inner // dim
    return implied


_MAMBA_KEYS = ("d_conv", "d_head", "d_state", "expand", "n_groups", "n_heads")

GRANITEMOEHYBRID = Family(
    config=GraniteMoeHybridConfig,
    read=read,
    # Of training, of how a state space is evaluated, and of parts that a model may not have.
    harmless=frozenset(
        {
            "init_method",
            "mamba_chunk_size",
            "mamba_conv_bias",
            "mamba_inner_size",
            "mamba_proj_bias",
            "normalization_function",
            "output_router_logits",
            "rope_finetuned",
            "router_aux_loss_coef",
            "time_step_limit",
            *(f"mamba_{name}" for name in _MAMBA_KEYS),
        }
    ),
    squeezed=re.compile(r"model\.layers\.\d+\.mamba\.conv1d\.weight"),
    stacked={
        "block_sparse_moe.input_linear.weight": Stacked(
            ("gate_proj", "up_proj"), owner="block_sparse_moe.experts"
        ),
        "block_sparse_moe.output_linear.weight": Stacked(
            ("down_proj",), owner="block_sparse_moe.experts"
        ),
    },
    # Models that only attend and have no experts are of the family granite there.
    gguf_architecture="granitehybrid",
    gguf_keys=GGUF_KEYS
    | GGUF_MULTIPLIERS
    | {
        "mamba_d_conv": "ssm.conv_kernel",
        "mamba_d_state": "ssm.state_size",
        "mamba_inner_size": "ssm.inner_size",
        "mamba_n_groups": "ssm.group_count",
        "mamba_n_heads": "ssm.time_step_rank",
        "num_experts_per_tok": "expert_used_count",
        "num_local_experts": "expert_count",
        "shared_intermediate_size": "expert_shared_feed_forward_length",
    },
    gguf_harmless=frozenset({"expert_feed_forward_length"}),  # feed_forward_length, once more
    gguf_layer_names={
        **{name: inner for name, inner in GGUF_BLOCK.items() if not name.startswith("ffn_")},
        "ffn_norm.weight": "post_attention_layernorm.weight",
        "ffn_down.weight": "shared_mlp.output_linear.weight",
        "ffn_down_shexp.weight": "shared_mlp.output_linear.weight",
        "ffn_gate_inp.weight": "block_sparse_moe.router.layer.weight",
        "ffn_gate_exps.weight": "block_sparse_moe.experts.gate_proj",
        "ffn_up_exps.weight": "block_sparse_moe.experts.up_proj",
        "ffn_down_exps.weight": "block_sparse_moe.experts.down_proj",
        "ssm_a": "mamba.A_log",
        "ssm_conv1d.bias": "mamba.conv1d.bias",
        "ssm_conv1d.weight": "mamba.conv1d.weight",
        "ssm_d": "mamba.D",
        "ssm_dt.bias": "mamba.dt_bias",
        "ssm_in.weight": "mamba.in_proj.weight",
        "ssm_norm.weight": "mamba.norm.weight",
        "ssm_out.weight": "mamba.out_proj.weight",
    },
    gguf_joined={
        ("ffn_gate.weight", "ffn_up.weight"): "shared_mlp.input_linear.weight",
        ("ffn_gate_shexp.weight", "ffn_up_shexp.weight"): "shared_mlp.input_linear.weight",
    },
    gguf_interleaved=frozenset({"attn_q.weight", "attn_k.weight"}),
    gguf_vectors=frozenset({"ssm_a", "ssm_d", "ssm_norm.weight"}),
    gguf_values={"ssm_a": logarithm},
    gguf_implied=_implied,
)
