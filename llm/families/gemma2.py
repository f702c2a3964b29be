"""Gemma 2: norms before and after attention and MLP, GELU gates, scaled embeddings, windows in
every other layer, and soft caps on the scores of attention and on the logits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import ConfigReader, is_integer
from edge_llm.llm.decoder import AttentionShape, read_common, read_window, read_windows
from edge_llm.llm.families.family import GGUF_BLOCK, GGUF_KEYS, GGUF_WINDOW, Family
from edge_llm.llm.rope import Rope

DEFAULT_HEAD_DIM = 256
DEFAULT_WINDOW = 4096
DEFAULT_SCORE_CAP, DEFAULT_LOGIT_CAP = 50.0, 30.0
ACTIVATION = "gelu_pytorch_tanh"
LAYERS_OF_27B = 46

# What Gemma's Hugging Face checkpoints hold less 1.
NORMS = re.compile(r"model\.(layers\.\d+\.(self_attn\.[qk]_norm|\w+_layernorm)|norm)\.weight")
GGUF_SANDWICH = GGUF_BLOCK | {
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "ffn_norm.weight": "pre_feedforward_layernorm.weight",
    "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemma2Config:
    """Facts of a Gemma2Config; ``sliding_window`` has one of each layer, 0 for none, and
    ``attn_logit_softcapping`` is 0 for none."""

    model_type: ClassVar[str] = "gemma2"

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
    query_pre_attn_scalar: float
    attn_logit_softcapping: float
    final_logit_softcapping: float | None
    sliding_window: tuple[int, ...]

    def attention(self, layer: int) -> AttentionShape:
        """Return what the attention of ``layer`` computes."""
        return AttentionShape(
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            rope=self.rope_parameters,
            window=self.sliding_window[layer],
            scale=self.query_pre_attn_scalar**-0.5,
            softcap=self.attn_logit_softcapping,
        )


def read_cap(reader: ConfigReader, key: str, default: float | None) -> float | None:
    """Return a soft cap: None for ``null``, which says that there is none, while the ``default`` is
    for configs without the key."""
    if reader.absent(key):
        return default
    return None if reader.get(key) is None else reader.positive(key)


def read(reader: ConfigReader) -> Gemma2Config:
    """Read a Gemma2Config."""
    common = read_common(
        reader,
        head_dim=DEFAULT_HEAD_DIM,
        activation=ACTIVATION,
        tied=True,
        biases=("attention_bias",),
    )
    reader.neutral("hidden_activation", ACTIVATION)
    reader.neutral("use_bidirectional_attention", False)
    window = read_window(reader, DEFAULT_WINDOW)
    return Gemma2Config(
        **common,
        attention_bias=reader.flag("attention_bias", False),
        query_pre_attn_scalar=reader.positive("query_pre_attn_scalar", 256.0),
        attn_logit_softcapping=read_cap(reader, "attn_logit_softcapping", DEFAULT_SCORE_CAP) or 0.0,
        final_logit_softcapping=read_cap(reader, "final_logit_softcapping", DEFAULT_LOGIT_CAP),
        sliding_window=read_windows(reader, common, window, lambda layer: layer % 2 == 0),
    )


def query_scalar(values: Mapping[str, object], layers: int) -> object:
    """Return ``query_pre_attn_scalar``, which GGUF files do not hold: the width of a head, but in
    the model with so many ``layers`` the share of a head in the model's width."""
    dim, heads = values["hidden_size"], values["num_attention_heads"]
    if values["num_hidden_layers"] == layers and is_integer(dim) and is_integer(heads) and heads:
        return dim / heads
    return values["head_dim"]


def _implied(values: Mapping[str, object]) -> Mapping[str, object]:
    return {
        "query_pre_attn_scalar": query_scalar(values, LAYERS_OF_27B),
        "attn_logit_softcapping": DEFAULT_SCORE_CAP,
        "final_logit_softcapping": DEFAULT_LOGIT_CAP,
    }


GEMMA2 = Family(
    config=Gemma2Config,
    read=read,
    harmless=frozenset({"cache_implementation"}),
    less_one=NORMS,
    gguf_architecture="gemma2",
    gguf_keys=GGUF_KEYS
    | GGUF_WINDOW
    | {
        "attn_logit_softcapping": "attn_logit_softcapping",
        "final_logit_softcapping": "final_logit_softcapping",
    },
    gguf_layer_names=GGUF_SANDWICH,
    gguf_implied=_implied,
)
