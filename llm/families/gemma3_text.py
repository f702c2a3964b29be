"""Gemma 3, its text models: Gemma 2's blocks with norms of queries and keys in the place of soft
caps, five layers with a window to each that sees all before, and another rope for either kind. In
EmbeddingGemma, which makes vectors, tokens see those behind them too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import ConfigReader
from edge_llm.llm.decoder import (
    FULL,
    SLIDING,
    AttentionShape,
    read_common,
    read_sliding,
    read_window,
    read_windows,
)
from edge_llm.llm.families.family import GGUF_KEYS, GGUF_WINDOW, Family
from edge_llm.llm.families.gemma2 import (
    ACTIVATION,
    DEFAULT_HEAD_DIM,
    DEFAULT_WINDOW,
    GGUF_SANDWICH,
    NORMS,
    query_scalar,
    read_cap,
)
from edge_llm.llm.rope import Rope, read_rope, read_ropes

DEFAULT_THETAS = {FULL: 1_000_000.0, SLIDING: 10_000.0}
DEFAULT_PATTERN = 6
# The configs of the models with eyes state what differs from these.
DEFAULT_SIZES = {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131_072,
}
LAYERS_OF_27B = 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemma3TextConfig:
    """Facts of a Gemma3TextConfig; ``sliding_window`` has one of each layer, 0 for none.
    ``rope_parameters`` is the rope of the layers without a window, ``rope_local`` that of the
    others; ``sliding`` says which these are, also where the window is no shorter than the
    context. With ``use_bidirectional_attention`` a window is that of one direction, while the keys
    of configs and files are about that of both."""

    model_type: ClassVar[str] = "gemma3_text"

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
    rope_local: Rope
    tie_word_embeddings: bool
    attention_bias: bool
    use_bidirectional_attention: bool
    query_pre_attn_scalar: float
    final_logit_softcapping: float | None
    sliding_window: tuple[int, ...]
    sliding: tuple[bool, ...]

    def attention(self, layer: int) -> AttentionShape:
        """Return what the attention of ``layer`` computes."""
        return AttentionShape(
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            rope=self.rope_local if self.sliding[layer] else self.rope_parameters,
            window=self.sliding_window[layer],
            scale=self.query_pre_attn_scalar**-0.5,
            bidirectional=self.use_bidirectional_attention,
        )


def read(reader: ConfigReader) -> Gemma3TextConfig:
    """Read a Gemma3TextConfig."""
    head_dim = reader.integer("head_dim", DEFAULT_HEAD_DIM)
    ropes = _read_ropes(reader, head_dim)
    common = read_common(
        reader,
        head_dim=DEFAULT_HEAD_DIM,
        rope=ropes[FULL],
        activation=ACTIVATION,
        tied=True,
        biases=("attention_bias",),
    )
    reader.neutral("hidden_activation", ACTIVATION)
    reader.neutral("attn_logit_softcapping", None)
    pattern = reader.integer("sliding_window_pattern", DEFAULT_PATTERN)
    window = read_window(reader, DEFAULT_WINDOW)
    bidirectional = reader.flag("use_bidirectional_attention", False)
    if bidirectional and window:
        window = window // 2 + 1
    return Gemma3TextConfig(
        **common,
        rope_local=ropes[SLIDING],
        attention_bias=reader.flag("attention_bias", False),
        use_bidirectional_attention=bidirectional,
        query_pre_attn_scalar=reader.positive("query_pre_attn_scalar", 256.0),
        final_logit_softcapping=read_cap(reader, "final_logit_softcapping", None),
        sliding_window=read_windows(
            reader, common, window, lambda layer: (layer + 1) % pattern != 0
        ),
        sliding=read_sliding(reader, common, lambda layer: (layer + 1) % pattern != 0),
    )


def _read_ropes(reader: ConfigReader, head_dim: int) -> dict[str, Rope]:
    """Return the rope of each kind of layer. In the form of transformers 4 a scaling is that of the
    layers without a window alone."""
    thetas = {
        FULL: reader.positive("rope_theta", DEFAULT_THETAS[FULL]),
        SLIDING: reader.positive("rope_local_base_freq", DEFAULT_THETAS[SLIDING]),
    }
    ropes = read_ropes(reader, head_dim, thetas)
    if ropes is not None:
        return ropes
    full = read_rope(reader, head_dim, theta=thetas[FULL])
    return {FULL: full, SLIDING: Rope(thetas[SLIDING], head_dim)}


def _implied(values: Mapping[str, object]) -> Mapping[str, object]:
    return {"query_pre_attn_scalar": query_scalar(values, LAYERS_OF_27B)}


GEMMA3_TEXT = Family(
    config=Gemma3TextConfig,
    read=read,
    wrapper="gemma3",
    defaults=DEFAULT_SIZES,
    harmless=frozenset({"_sliding_window_pattern", "cache_implementation"}),
    leftovers=re.compile(r"(model\.)?(vision_tower|multi_modal_projector)\..*"),
    less_one=NORMS,
    gguf_architecture="gemma3",
    gguf_variants={"gemma-embedding": {"use_bidirectional_attention": True}},
    # The sizes of EmbeddingGemma's matrices, which have them themselves.
    gguf_harmless=frozenset(f"dense_{n}_feat_{way}" for n in (2, 3) for way in ("in", "out"))
    | {"embedding_length_out"},
    gguf_keys=GGUF_KEYS
    | GGUF_WINDOW
    | {
        "final_logit_softcapping": "final_logit_softcapping",
        "rope_local_base_freq": "rope.freq_base_swa",
        "sliding_window_pattern": "attention.sliding_window_pattern",
    },
    gguf_layer_names=GGUF_SANDWICH
    | {
        "attn_q_norm.weight": "self_attn.q_norm.weight",
        "attn_k_norm.weight": "self_attn.k_norm.weight",
    },
    gguf_implied=_implied,
)
