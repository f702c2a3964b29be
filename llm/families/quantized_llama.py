"""Llama as Meta publishes it quantized: with low-rank terms beside the linears (QLoRA), or with a
Hadamard transform before the projection down (SpinQuant)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edge_llm.llm.config import ConfigReader
from edge_llm.llm.decoder import AttentionShape, read_common, read_windows
from edge_llm.llm.families.family import Family
from edge_llm.llm.rope import Rope
from edge_llm.program.hadamard import has_transform

MAX_RANK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedLlamaConfig:
    """Facts of Llama and of what its quantization added. With ``adapter_scale`` every linear of a
    layer has a term of rank ``adapter_rank`` beside it, times that; without, the rank is 0. With
    ``hadamard`` what the projection down takes is transformed first."""

    model_type: ClassVar[str] = "quantized_llama"

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
    adapter_scale: float | None
    adapter_rank: int
    hadamard: bool

    def attention(self, layer: int) -> AttentionShape:
        """Return what the attention of ``layer`` computes."""
        return AttentionShape(
            heads=self.num_attention_heads,
            kv_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            rope=self.rope_parameters,
        )


def read(reader: ConfigReader) -> QuantizedLlamaConfig:
    """Read a QuantizedLlamaConfig."""
    common = read_common(reader)
    read_windows(reader, common)
    scaled = reader.get("adapter_scale") is not None
    scale = reader.positive("adapter_scale") if scaled else None
    rank = reader.integer("adapter_rank", high=MAX_RANK) if scaled else 0
    hadamard, ffn = reader.flag("hadamard", False), common["intermediate_size"]
    reader.require(
        not hadamard or has_transform(ffn),
        f"intermediate_size: got {ffn}, expected 2^k or 28 * 2^k, a multiple of 64: it is the size "
        "of a Hadamard transform",
    )
    return QuantizedLlamaConfig(**common, adapter_scale=scale, adapter_rank=rank, hadamard=hadamard)


QUANTIZED_LLAMA = Family(config=QuantizedLlamaConfig, read=read)
