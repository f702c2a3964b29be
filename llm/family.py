"""What the registry knows of a model family."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from edge_llm.llm.config import ConfigReader, ModelConfig
from edge_llm.llm.layers import CacheShape


@dataclass(frozen=True, slots=True)
class Family:
    """One decoder architecture.

    Attributes:
        name: ``model_type`` in Hugging Face configs.
        read: takes the facts from a config, and records what cannot be honoured.
        harmless: keys that may have any value, beside ``config.HARMLESS_KEYS``.
        build: wires the module; its parameters are named as in Hugging Face checkpoints.
        leftovers: names of checkpoint tensors that carry nothing (``re.fullmatch``).
        gguf_architecture: ``general.architecture`` in GGUF files; None where they have no name for
            this family (GGUF calls Mistral "llama").
        gguf_layer_names: GGUF name within ``blk.N.`` -> parameter name within ``model.layers.N.``.
        gguf_interleaved: GGUF names within a layer whose rows are stored for the interleaved
            rotary convention, and are permuted back to the half-split one.
    """

    name: str
    read: Callable[[ConfigReader], ModelConfig]
    build: Callable[[ModelConfig, CacheShape], nn.Module]
    gguf_architecture: str | None = None
    gguf_layer_names: Mapping[str, str] = field(default_factory=dict)
    gguf_interleaved: frozenset[str] = frozenset()
    harmless: frozenset[str] = frozenset()
    leftovers: re.Pattern[str] | None = None


# The names that GGUF gives to the parts of ``layers.Block``.
GGUF_BLOCK = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
