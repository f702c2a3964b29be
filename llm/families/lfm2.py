"""LFM2 (dense): short gated convolutions among layers of attention, whose query and key heads are
normalized before the rotation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import MAX_LAYERS, MAX_SIZE, ConfigReader, is_integer, shorten
from edge_llm.llm.decoder import FULL, AttentionShape, read_common
from edge_llm.llm.families.family import GGUF_KEYS, Family
from edge_llm.llm.rope import Rope
from edge_llm.program.ops import MAX_TAPS

CONVOLUTION = "conv"
DEFAULT_THETA = 1_000_000.0
DEFAULT_TAPS = 3
DEFAULT_MULTIPLE = 256
# What the published configs say again, or say of how the weights were initialized.
HARMLESS = frozenset(
    {
        "block_dim",
        "block_mlp_init_scale",
        "block_norm_eps",
        "block_out_init_scale",
        "block_use_swiglu",
        "block_use_xavier_init",
        "conv_dim",
        "conv_dim_out",
        "conv_use_xavier_init",
        "num_heads",
        "theta",
        "use_pos_enc",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lfm2Config:
    """Facts of an Lfm2Config; ``intermediate_size`` is that of the weights, and ``convolves`` says
    of each layer whether it is a convolution and no attention."""

    model_type: ClassVar[str] = "lfm2"

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
    conv_bias: bool
    conv_L_cache: int  # noqa: N815 -- as Hugging Face calls it
    convolves: tuple[bool, ...]

    def attention(self, layer: int) -> AttentionShape | None:
        """Return what the attention of ``layer`` computes; None where it is a convolution."""
        return None if self.convolves[layer] else self.attention_shape

    @property
    def attention_shape(self) -> AttentionShape:
        """Return what every attention computes."""
        return AttentionShape(
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            rope=self.rope_parameters,
        )


def read(reader: ConfigReader) -> Lfm2Config:
    """Read an Lfm2Config."""
    common = read_common(
        reader,
        norm_eps=1e-5,
        eps_key="norm_eps",
        theta=DEFAULT_THETA,
        tied=reader.flag("tie_embedding", True),
        ffn=_read_ffn(reader),
    )
    return Lfm2Config(
        **common,
        conv_bias=reader.flag("conv_bias", False),
        conv_L_cache=reader.integer("conv_L_cache", DEFAULT_TAPS, high=MAX_TAPS),
        convolves=read_convolves(reader, common["num_hidden_layers"]),
    )


def _read_ffn(reader: ConfigReader) -> int:
    """Return the width of the MLPs: what the config says or, adjusted, two thirds of it, times a
    factor, up to the next multiple."""
    reader.get("intermediate_size")  # what both names say, the other one decides
    said = "intermediate_size" if reader.get("block_ff_dim") is None else "block_ff_dim"
    size = reader.integer(said)
    multiple = reader.integer("block_multiple_of", DEFAULT_MULTIPLE)
    factor = reader.positive("block_ffn_dim_multiplier", 1.0)
    if not reader.flag("block_auto_adjust_ff_dim", True):
        return size
    adjusted = -(-int(factor * int(2 * size / 3)) // multiple) * multiple
    if not 1 <= adjusted <= MAX_SIZE:
        reader.problem(
            f"{said}: got {size}, which block_ffn_dim_multiplier {factor} and block_multiple_of "
            f"{multiple} make {adjusted}, expected 1 to {MAX_SIZE}"
        )
        return 1
    return adjusted


def read_convolves(reader: ConfigReader, layers: int) -> tuple[bool, ...]:
    """Return which layers are convolutions: ``layer_types`` says it or, in its place, those that
    ``full_attn_idxs`` does not have; without either none is."""
    kinds, attending = reader.get("layer_types"), reader.get("full_attn_idxs")
    if kinds is None:
        if attending is None:
            return (False,) * layers
        if not isinstance(attending, list) or not all(
            is_integer(layer) and 0 <= layer < MAX_LAYERS for layer in attending
        ):
            reader.problem(f"full_attn_idxs: got {shorten(attending)}, expected a list of layers")
            return (False,) * layers
        return tuple(layer not in attending for layer in range(layers))
    if (
        not isinstance(kinds, list)
        or len(kinds) != layers
        or any(kind not in (FULL, CONVOLUTION) for kind in kinds)
    ):
        reader.problem(
            f"layer_types: got {shorten(kinds)}, expected {FULL!r} or {CONVOLUTION!r} for each of "
            f"{layers} layers"
        )
        return (False,) * layers
    return tuple(kind == CONVOLUTION for kind in kinds)


def _implied(values: Mapping[str, object]) -> Mapping[str, object]:
    """Files have the width of the weights, and heads of keys and values for each layer, none where
    it is a convolution."""
    implied: dict[str, object] = {
        "norm_eps": values["rms_norm_eps"],  # by their own name
        "block_auto_adjust_ff_dim": False,
    }
    heads = values["num_key_value_heads"]
    if isinstance(heads, list) and len(set(heads) - {0}) == 1:
        implied["num_key_value_heads"] = next(count for count in heads if count)
        implied["layer_types"] = [FULL if count else CONVOLUTION for count in heads]
    return implied


LFM2 = Family(
    config=Lfm2Config,
    read=read,
    harmless=HARMLESS,
    squeezed=re.compile(r"model\.layers\.\d+\.conv\.conv\.weight"),
    gguf_architecture="lfm2",
    gguf_keys=GGUF_KEYS | {"conv_L_cache": "shortconv.l_cache"},
    gguf_names={
        "token_embd_norm.weight": "model.embedding_norm.weight",
        "output_norm.weight": "model.embedding_norm.weight",
    },
    gguf_layer_names={
        "attn_norm.weight": "operator_norm.weight",
        "attn_q.weight": "self_attn.q_proj.weight",
        "attn_k.weight": "self_attn.k_proj.weight",
        "attn_v.weight": "self_attn.v_proj.weight",
        "attn_output.weight": "self_attn.out_proj.weight",
        "attn_q_norm.weight": "self_attn.q_layernorm.weight",
        "attn_k_norm.weight": "self_attn.k_layernorm.weight",
        "shortconv.conv.weight": "conv.conv.weight",
        "shortconv.conv.bias": "conv.conv.bias",
        "shortconv.in_proj.weight": "conv.in_proj.weight",
        "shortconv.in_proj.bias": "conv.in_proj.bias",
        "shortconv.out_proj.weight": "conv.out_proj.weight",
        "shortconv.out_proj.bias": "conv.out_proj.bias",
        "ffn_norm.weight": "ffn_norm.weight",
        "ffn_gate.weight": "feed_forward.w1.weight",
        "ffn_up.weight": "feed_forward.w3.weight",
        "ffn_down.weight": "feed_forward.w2.weight",
    },
    gguf_implied=_implied,
)
