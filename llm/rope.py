"""Rotary position embedding: reading its parameters, and the tables of cosines and sines."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from edge_llm.llm.config import (
    ConfigReader,
    FrequencyDivisors,
    LinearScaling,
    Llama3Scaling,
    ModelConfig,
    RopeScaling,
    shorten,
)

DEFAULT_THETA = 10_000.0

ROPE_TYPES = ("default", "linear", "llama3")


def read_rope(reader: ConfigReader) -> tuple[float, RopeScaling | None]:
    """Base frequency and scaling rule, from ``rope_parameters`` (transformers 5) or from
    ``rope_theta`` and ``rope_scaling`` (version 4)."""
    theta = reader.positive("rope_theta", DEFAULT_THETA)
    sources = {key: reader.get(key) for key in ("rope_parameters", "rope_scaling")}
    given = {key: value for key, value in sources.items() if value is not None}
    if len(given) == 2:
        reader.problem("rope_scaling: got both it and rope_parameters, expected one of them")
    scaling = None
    for key, value in given.items():
        if not isinstance(value, Mapping):
            reader.problem(f"{key}: got {shorten(value)}, expected an object")
            continue
        inner = ConfigReader(value, key)
        theta = inner.positive("rope_theta", theta)
        inner.neutral("partial_rotary_factor", 1.0)
        scaling = _read_scaling(inner)
        reader.absorb(inner, key)
    return theta, scaling


def _read_scaling(reader: ConfigReader) -> RopeScaling | None:
    legacy = reader.get("type")  # the name of rope_type in the first releases with scaling
    kind = reader.get("rope_type") or legacy or "default"
    if kind == "linear":
        return LinearScaling(reader.positive("factor"))
    if kind == "llama3":
        low, high = (
            reader.positive("low_freq_factor", 1.0),
            reader.positive("high_freq_factor", 4.0),
        )
        reader.require(
            low < high, f"high_freq_factor: got {high}, expected more than low_freq_factor {low}"
        )
        return Llama3Scaling(
            factor=reader.positive("factor"),
            low_freq_factor=low,
            high_freq_factor=high,
            original_context=reader.integer("original_max_position_embeddings"),
        )
    if kind != "default":
        expected = ", ".join(repr(name) for name in ROPE_TYPES)
        reader.problem(f"rope_type: got {shorten(kind)}, expected one of {expected}")
    return None


def inverse_frequencies(config: ModelConfig) -> torch.Tensor:
    """Angle per position of each rotated pair, float64 [head_dim / 2].

    The base rule is theta^(-2i / head_dim) (RoFormer, section 3.2.2); llama3 is the rule published
    with Llama 3.1: wavelengths beyond original / low are slowed by ``factor``, those under
    original / high are kept, and a linear ramp over original / wavelength blends in between.
    """
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    base = config.rope_theta**-exponents
    match config.rope_scaling:
        case None:
            return base
        case LinearScaling(factor):
            return base / factor
        case FrequencyDivisors(values):
            return base / torch.tensor(values, dtype=torch.float64)
        case Llama3Scaling(factor, low, high, original):
            turns = original * base / (2 * math.pi)  # rotations within the original context
            kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
            return base * (kept + (1.0 - kept) / factor)


def rope_tables(config: ModelConfig, context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines for positions 0..context-1, float32 [context, head_dim / 2] each,
    computed in float64 and rounded once."""
    angles = torch.outer(torch.arange(context, dtype=torch.float64), inverse_frequencies(config))
    return angles.cos().float(), angles.sin().float()
