"""The numbers in a plan that follow from a config, by name."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

from edge_llm.llm.config import is_number
from edge_llm.llm.decoder import DecoderConfig, Deriving, MixedConfig, ropes_of

Quantities = dict[str, int | float]

LAYER = "layer"  # of the quantities of a layer: its number


def quantities(config: DecoderConfig, context: int, layer: int | None) -> Quantities:
    """Return names -> numbers: ``context``, what a layer computes with (None: outside of layers),
    and every number among the fields of the config, under its own name."""
    numbers: Quantities = {"context": context}
    for index, rope in enumerate(ropes_of(config)):
        numbers[f"ropes[{index}].dim / 2"] = rope.dim // 2
    if layer is not None:
        numbers[LAYER] = layer
    shape = None if layer is None else config.attention(layer)
    if shape is not None:
        numbers |= {
            "heads": shape.heads,
            "kv_heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            "heads * head_dim": shape.heads * shape.head_dim,
            "2 * heads * head_dim": 2 * shape.heads * shape.head_dim,
            "kv_heads * head_dim": shape.kv_heads * shape.head_dim,
            "(heads + 2 * kv_heads) * head_dim": (shape.heads + 2 * shape.kv_heads)
            * shape.head_dim,
            "scale": shape.head_dim**-0.5 if shape.scale is None else shape.scale,
            "softcap": shape.softcap,
            "window": shape.window,
        }
    numbers["3 * hidden_size"] = 3 * config.hidden_size
    numbers["2 * intermediate_size"] = 2 * config.intermediate_size
    numbers["hidden_size ** 0.5"] = config.hidden_size**0.5
    assert is_dataclass(config)  # as every family's is
    for field in fields(config):
        value = getattr(config, field.name)
        if is_number(value):
            numbers.setdefault(field.name, value)  # what a layer has of its own stays
            if field.name.endswith("_scaling"):  # Granite's, by which it divides
                numbers[f"1 / {field.name}"] = 1.0 / value
    if isinstance(config, Deriving):
        numbers |= config.derived()
    numbers["2 * hidden_size"] = 2 * config.hidden_size  # unless it is one of those
    return numbers


def attending(config: DecoderConfig) -> int:
    """Return the first layer that attends, which a draft's is like."""
    layers = range(config.num_hidden_layers)
    return next(layer for layer in layers if config.attention(layer) is not None)


def structure(config: DecoderConfig) -> str:
    """Return what decides, beside the kinds of its layers, which operators a model of a family has:
    the flags of its config, and the numbers that it goes without, as text."""
    assert is_dataclass(config)
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    said = [name for name, value in values.items() if value is True]
    said += [f"no {name}" for name, value in values.items() if value is None]
    return ", ".join(said) or "plain"


def layer_kind(config: DecoderConfig, layer: int) -> str:
    """Return what decides which operators a layer has: whether it attends or convolves, the rope
    that it rotates with, and that of its queries if they have one, by their place among the
    model's, and what else the family says of it."""
    shape, ropes = config.attention(layer), ropes_of(config)
    if shape is None:
        kind = "convolution"
    else:
        kind = "no rope" if shape.rope is None else f"rope {ropes.index(shape.rope)}"
        if shape.query_rope is not None:
            kind += f", queries {ropes.index(shape.query_rope)}"
    return f"{kind}, {config.layer_kind(layer)}" if isinstance(config, MixedConfig) else kind
