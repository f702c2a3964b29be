"""Qwen3.5 (dense), its text models: three layers of four fold what they have seen into one matrix a
head by the gated delta rule, behind a short convolution; the fourth attends, its heads partly
rotated and gated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_llm.llm.config import ConfigReader, is_integer, shorten
from edge_llm.llm.decoder import FULL, AttentionShape, DeltaShape, read_common
from edge_llm.llm.families.family import GGUF_BLOCK, GGUF_KEYS, Family, Order
from edge_llm.llm.rope import Rope, read_rope
from edge_llm.program.ops import MAX_FOLD_DIM, MAX_HEADS, MAX_TAPS

LINEAR = "linear_attention"
DEFAULT_HEAD_DIM = 256
DEFAULT_ROTARY = 0.25
DEFAULT_INTERVAL = 4
# Positions of images have three parts, each of which turns some columns; those of text are equal.
IMAGE_ROPE = frozenset({"mrope_interleaved", "mrope_section"})
NORMS = re.compile(
    r"(model|mtp)\.(layers\.\d+\.(self_attn\.[qk]_norm|\w+_layernorm)|norm|pre_fc_norm_\w+)\.weight"
)

# The tensors of GGUF in which value heads are put in another order: whether queries and keys come
# before, and whether a head has its columns there, or one number.
_OF_VALUE_HEADS = {
    "attn_qkv.weight": (True, True),
    "attn_gate.weight": (False, True),
    "ssm_a": (False, False),
    "ssm_alpha.weight": (False, False),
    "ssm_beta.weight": (False, False),
    "ssm_conv1d.weight": (True, True),
    "ssm_dt.bias": (False, False),
    "ssm_out.weight": (False, True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen35TextConfig:
    """Facts of a Qwen3_5TextConfig; ``linear`` says of each layer whether it folds,
    ``mtp_weights`` whether there is a layer that predicts further tokens."""

    model_type: ClassVar[str] = "qwen3_5_text"

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
    linear_num_key_heads: int
    linear_num_value_heads: int
    linear_key_head_dim: int
    linear_value_head_dim: int
    linear_conv_kernel_dim: int
    linear: tuple[bool, ...]
    mtp_weights: bool

    def attention(self, layer: int) -> AttentionShape | None:
        """Return what the attention of ``layer`` computes; None where it folds."""
        if self.linear[layer]:
            return None
        return AttentionShape(
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            rope=self.rope_parameters,
        )

    @property
    def delta(self) -> DeltaShape:
        """Return what the layers without attention compute."""
        return DeltaShape(
            key_heads=self.linear_num_key_heads,
            heads=self.linear_num_value_heads,
            k_dim=self.linear_key_head_dim,
            v_dim=self.linear_value_head_dim,
        )

    def derived(self) -> Mapping[str, int | float]:
        """Return the widths of the layers without attention, and the scale of their queries."""
        keys = self.linear_num_key_heads * self.linear_key_head_dim
        values = self.linear_num_value_heads * self.linear_value_head_dim
        return {
            "linear keys": keys,
            "linear values": values,
            "linear queries, keys and values": 2 * keys + values,
            "linear scale": self.linear_key_head_dim**-0.5,
        }


def read(reader: ConfigReader) -> Qwen35TextConfig:
    """Read a Qwen3_5TextConfig."""
    return read_text(reader, experts=False)


def read_text(reader: ConfigReader, *, experts: bool) -> Qwen35TextConfig:
    """Read what the models with ``experts`` and those without have in common."""
    head_dim = reader.integer("head_dim", DEFAULT_HEAD_DIM)
    rope = read_rope(reader, head_dim, partial=True, fraction=DEFAULT_ROTARY, harmless=IMAGE_ROPE)
    common = read_common(
        reader,
        head_dim=DEFAULT_HEAD_DIM,
        rope=rope,
        biases=("attention_bias",),
        experts=experts,
    )
    reader.neutral("attn_output_gate", True)
    reader.neutral("mlp_only_layers", [])
    key_heads = reader.integer("linear_num_key_heads", 16, high=MAX_HEADS)
    heads = reader.integer("linear_num_value_heads", 32, high=MAX_HEADS)
    reader.require(
        heads % key_heads == 0,
        f"linear_num_value_heads: got {heads}, expected a multiple of linear_num_key_heads "
        f"{key_heads}",
    )
    linear = _read_kinds(reader, common["num_hidden_layers"])
    return Qwen35TextConfig(
        **common,
        attention_bias=reader.flag("attention_bias", False),
        linear_num_key_heads=key_heads,
        linear_num_value_heads=heads,
        linear_key_head_dim=reader.integer("linear_key_head_dim", 128, high=MAX_FOLD_DIM),
        linear_value_head_dim=reader.integer("linear_value_head_dim", 128, high=MAX_FOLD_DIM),
        linear_conv_kernel_dim=reader.integer("linear_conv_kernel_dim", 4, high=MAX_TAPS),
        linear=linear,
        mtp_weights=_predicts(reader) and not all(linear),
    )


def _predicts(reader: ConfigReader) -> bool:
    """Tell whether the checkpoint has a layer that predicts further tokens (which its reader says),
    and one that is known: no second one, nor a table of its own."""
    layers = reader.integer("mtp_num_hidden_layers", 1, low=0)
    dedicated = reader.flag("mtp_use_dedicated_embeddings", False)
    return reader.flag("mtp_weights", False) and layers == 1 and not dedicated


def _read_kinds(reader: ConfigReader, layers: int) -> tuple[bool, ...]:
    interval = reader.integer("full_attention_interval", DEFAULT_INTERVAL)
    kinds = reader.get("layer_types")
    if kinds is None:
        return tuple((layer + 1) % interval != 0 for layer in range(layers))
    if (
        not isinstance(kinds, list)
        or len(kinds) != layers
        or any(kind not in (LINEAR, FULL) for kind in kinds)
    ):
        reader.problem(
            f"layer_types: got {shorten(kinds)}, expected {LINEAR!r} or {FULL!r} for each of "
            f"{layers} layers"
        )
        return (True,) * layers
    return tuple(kind == LINEAR for kind in kinds)


def gguf_order(config: Qwen35TextConfig, name: str) -> Order | None:
    """Value heads, each of which belongs to one key head, lie there one of each key head after the
    other, then the next one of each."""
    key_heads, heads = config.linear_num_key_heads, config.linear_num_value_heads
    if key_heads == heads or name not in _OF_VALUE_HEADS:
        return None
    keys, columns = _OF_VALUE_HEADS[name]
    size = config.linear_value_head_dim if columns else 1
    stored = np.arange(heads * size).reshape(heads // key_heads, key_heads, size)
    index = stored.swapaxes(0, 1).reshape(-1)
    if keys:
        first = 2 * key_heads * config.linear_key_head_dim
        index = np.concatenate([np.arange(first), first + index])
    return Order(1 if name == "ssm_out.weight" else 0, index)


def logarithm(rate: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return A_log of the -e^A_log that is stored. What no such number is becomes NaN."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log(-rate.astype(np.float64)).astype(np.float32)


def implied(values: Mapping[str, object]) -> Mapping[str, object]:
    """Return the width of a value head, of which files have that of all together."""
    inner, heads = values["linear_inner_size"], values["linear_num_value_heads"]
    if is_integer(inner) and is_integer(heads) and heads > 0:
        return {"linear_value_head_dim": inner // heads}
    return {}


HARMLESS = frozenset(
    {
        "linear_inner_size",
        "mamba_ssm_dtype",
        "mrope_section",
    }
)
GGUF_FOLDED_KEYS = {
    "full_attention_interval": "full_attention_interval",
    "linear_conv_kernel_dim": "ssm.conv_kernel",
    "linear_inner_size": "ssm.inner_size",
    "linear_key_head_dim": "ssm.state_size",
    "linear_num_key_heads": "ssm.group_count",
    "linear_num_value_heads": "ssm.time_step_rank",
    "mrope_section": "rope.dimension_sections",
}
# All but the MLP.
GGUF_LAYER = {name: inner for name, inner in GGUF_BLOCK.items() if not name.startswith("ffn_")} | {
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "attn_qkv.weight": "linear_attn.in_proj_qkv.weight",
    "attn_gate.weight": "linear_attn.in_proj_z.weight",
    "ssm_a": "linear_attn.A_log",
    "ssm_alpha.weight": "linear_attn.in_proj_a.weight",
    "ssm_beta.weight": "linear_attn.in_proj_b.weight",
    "ssm_conv1d.weight": "linear_attn.conv1d.weight",
    "ssm_dt.bias": "linear_attn.dt_bias",
    "ssm_norm.weight": "linear_attn.norm.weight",
    "ssm_out.weight": "linear_attn.out_proj.weight",
}
LEFTOVERS = re.compile(r"(model\.)?visual\..*|model\.mtp\..*")
SQUEEZED = re.compile(r"model\.layers\.\d+\.linear_attn\.conv1d\.weight")


def unused(config: Qwen35TextConfig, name: str) -> bool:
    """Tell whether a tensor is of layers that predict further tokens, and these are left out."""
    return name.startswith("mtp.") and not config.mtp_weights


QWEN3_5_TEXT = Family(
    config=Qwen35TextConfig,
    read=read,
    wrapper="qwen3_5",
    harmless=HARMLESS,
    leftovers=LEFTOVERS,
    unused=unused,
    less_one=NORMS,
    gguf_architecture="qwen35",
    gguf_keys=GGUF_KEYS | GGUF_FOLDED_KEYS,
    gguf_layer_names=GGUF_LAYER
    | {
        "ffn_gate.weight": "mlp.gate_proj.weight",
        "ffn_up.weight": "mlp.up_proj.weight",
        "ffn_down.weight": "mlp.down_proj.weight",
    },
    gguf_order=gguf_order,
    gguf_values={"ssm_a": logarithm},
    gguf_implied=implied,
    squeezed=SQUEEZED,
)
