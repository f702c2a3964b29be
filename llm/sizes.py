"""The sizes of a model, for planning."""

from __future__ import annotations

from math import prod

from edge_llm.llm.decoder import DecoderConfig, ropes_of
from edge_llm.llm.registry import parameter_shapes
from edge_llm.program.sketch import Shape


def shape_of(config: DecoderConfig) -> Shape:
    """Return what `program.sketch` needs of ``config``, whose layers must be of one size."""
    shapes = parameter_shapes(config)
    layers = [config.attention(layer) for layer in range(config.num_hidden_layers)]
    return Shape(
        vocab=config.vocab_size,
        dim=config.hidden_size,
        layers=len(layers),
        heads=layers[0].heads,
        kv_heads=layers[0].kv_heads,
        head_dim=layers[0].head_dim,
        ffn=config.intermediate_size,
        rotary_dim=sum(rope.dim for rope in ropes_of(config)),
        tied=config.tie_word_embeddings,
        parameters=sum(prod(shape) for shape in shapes.values()),
        windows=tuple(layer.window for layer in layers),
        fused_qkv=any(name.endswith(".qkv_proj.weight") for name in shapes),
    )
