"""Ministral 3, without its eyes: Mistral's blocks with YaRN, and queries that grow with their
position."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from edge_llm.llm.config import ConfigReader
from edge_llm.llm.decoder import AttentionShape, read_common, read_window, read_windows
from edge_llm.llm.families.family import GGUF_BLOCK, GGUF_KEYS, Family
from edge_llm.llm.families.mistral import EYES
from edge_llm.llm.rope import Rope, read_rope

DEFAULT_HEAD_DIM = 128
DEFAULT_THETA = 1_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ministral3Config:
    """Facts of a Ministral3Config; ``rope_parameters`` is the rope of the queries, which grow by
    ``llama_4_scaling_beta`` if there is one, ``sliding_window`` has one of each layer, 0 for none.
    """

    model_type: ClassVar[str] = "ministral3"

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
    sliding_window: tuple[int, ...]
    llama_4_scaling_beta: float | None

    def attention(self, layer: int) -> AttentionShape:
        """Return what the attention of ``layer`` computes."""
        queries = self.rope_parameters
        return AttentionShape(
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            rope=replace(queries, growth=None),
            window=self.sliding_window[layer],
            query_rope=queries if queries.growth else None,
        )


def read(reader: ConfigReader) -> Ministral3Config:
    """Read a Ministral3Config."""
    head_dim = reader.integer("head_dim", DEFAULT_HEAD_DIM)
    rope = read_rope(reader, head_dim, theta=DEFAULT_THETA, growing=True)
    common = read_common(reader, head_dim=DEFAULT_HEAD_DIM, norm_eps=1e-5, rope=rope)
    window = read_window(reader, 0)
    return Ministral3Config(
        **common,
        sliding_window=read_windows(reader, common, window),
        llama_4_scaling_beta=None if rope.growth is None else rope.growth.beta,
    )


MINISTRAL3 = Family(
    config=Ministral3Config,
    read=read,
    wrapper="mistral3",
    leftovers=EYES,
    gguf_architecture="mistral3",
    gguf_keys=GGUF_KEYS | {"llama_4_scaling_beta": "attention.temperature_scale"},
    gguf_layer_names=GGUF_BLOCK,
    gguf_interleaved=frozenset({"attn_q.weight", "attn_k.weight"}),
)
