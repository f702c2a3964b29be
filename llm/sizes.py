"""The sizes of a model, for planning."""

from __future__ import annotations

from math import prod

from edge_llm.llm.config import ModelConfig
from edge_llm.llm.registry import parameter_shapes
from edge_llm.program.sketch import Shape


def shape_of(config: ModelConfig) -> Shape:
    """Return what `program.sketch` needs of ``config``."""
    shapes = parameter_shapes(config)
    return Shape(
        vocab=config.vocab,
        dim=config.dim,
        layers=config.layers,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        ffn=config.ffn,
        rotary_dim=config.rotary_dim,
        tied=config.tied,
        parameters=sum(prod(shape) for shape in shapes.values()),
        windows=config.windows,
        fused_qkv=any(name.endswith(".qkv_proj.weight") for name in shapes),
    )
