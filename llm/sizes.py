"""The sizes of a model, for planning."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import astuple
from math import prod

from edge_llm.llm.decoder import AttentionShape, DecoderConfig, Folding, ropes_of, taps_of
from edge_llm.llm.registry import parameter_shapes
from edge_llm.program.sketch import Shape

_MEMBER = re.compile(r"\.layers\.(\d+)\..*\.experts\.(\d+)\.\w+\.weight$")
_INNER = re.compile(r"\.experts\.0\.(gate_proj|w1)\.weight$")  # what the width is seen of


def shape_of(config: DecoderConfig) -> Shape:
    """Return what `program.sketch` needs of ``config``, whose layers must be of one size."""
    shapes = parameter_shapes(config)
    layers = [config.attention(layer) for layer in range(config.num_hidden_layers)]
    none = AttentionShape(heads=0, kv_heads=0, head_dim=0, rope=None)
    attending = next((shape for shape in layers if shape is not None), none)
    return Shape(
        vocab=config.vocab_size,
        dim=config.hidden_size,
        layers=len(layers),
        heads=attending.heads,
        kv_heads=attending.kv_heads,
        head_dim=attending.head_dim,
        ffn=config.intermediate_size,
        rotary_dim=sum(rope.dim for rope in ropes_of(config)),
        tied=config.tie_word_embeddings,
        parameters=sum(prod(shape) for shape in shapes.values()),
        windows=tuple(0 if layer is None else layer.window for layer in layers),
        taps=tuple(taps_of(config, layer) for layer in range(len(layers))),
        experts=_experts(shapes, len(layers)),
        expert_ffn=next((shape[0] for name, shape in shapes.items() if _INNER.search(name)), 0),
        expert_bias=any(name.endswith(".experts.down_proj_bias") for name in shapes),
        chosen=getattr(config, "num_experts_per_tok", 0),
        delta=astuple(config.delta) if isinstance(config, Folding) else None,
        gated=isinstance(config, Folding),
        fused_qkv=any(name.endswith(".qkv_proj.weight") for name in shapes),
    )


def _experts(shapes: Mapping[str, tuple[int, ...]], layers: int) -> tuple[int, ...]:
    """Return how many experts each layer has."""
    members: list[set[str]] = [set() for _ in range(layers)]
    for name in shapes:
        if found := _MEMBER.search(name):
            members[int(found[1])].add(found[2])
    return tuple(map(len, members))
