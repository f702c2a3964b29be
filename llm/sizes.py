"""The sizes of a model, for planning."""

from __future__ import annotations

from math import prod

from edge_llm.llm.config import ModelConfig
from edge_llm.llm.registry import parameter_shapes
from edge_llm.program.sketch import Shape


def shape_of(config: ModelConfig) -> Shape:
    """What `program.sketch` needs of ``config``."""
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
        parameters=sum(prod(shape) for shape in parameter_shapes(config).values()),
        windows=config.windows,
    )
