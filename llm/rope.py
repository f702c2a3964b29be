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
    LongRopeScaling,
    ModelConfig,
    Rope,
    RopeScaling,
    YarnScaling,
    shorten,
)

DEFAULT_THETA = 10_000.0

ROPE_TYPES = ("default", "linear", "llama3", "longrope", "yarn")
_BLOCK = 4096  # positions at a time: float64 takes several times what is kept


def read_rope(reader: ConfigReader, *, theta: float = DEFAULT_THETA, partial: bool = False) -> Rope:
    """Base frequency (default: ``theta``), scaling rule and share of rotated columns, from
    ``rope_parameters`` (transformers 5) or from ``rope_theta`` and ``rope_scaling`` (version 4).

    ``partial``: the family can rotate a part of each head. The length trained with before scaling
    may stand beside the other parameters or at the top level of the config.
    """
    theta = reader.positive("rope_theta", theta)
    fraction = _fraction(reader, 1.0, partial)
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
        fraction = _fraction(inner, fraction, partial)
        scaling = _read_scaling(inner, reader)
        if isinstance(scaling, YarnScaling) and theta <= 1.0:
            reader.problem(f"rope_theta: got {theta}, expected more than 1 with yarn")
        reader.absorb(inner, key)
    return Rope(theta, scaling, fraction)


def _fraction(reader: ConfigReader, default: float, partial: bool) -> float:
    if not partial:
        reader.neutral("partial_rotary_factor", 1.0)
        return 1.0
    fraction = reader.positive("partial_rotary_factor", default)
    if fraction > 1.0:
        reader.problem(f"partial_rotary_factor: got {fraction}, expected at most 1.0")
        return 1.0
    return fraction


def _read_scaling(reader: ConfigReader, outer: ConfigReader) -> RopeScaling | None:
    legacy = reader.get("type")  # the name of rope_type in the first releases with scaling
    kind = reader.get("rope_type") or legacy or "default"
    if kind == "su":  # what the first Phi-3 configs call it
        kind = "longrope"
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
            original_context=_original_context(reader, outer),
        )
    if kind == "yarn":
        return _read_yarn(reader, outer)
    if kind == "longrope":
        return _read_longrope(reader, outer)
    if kind != "default":
        expected = ", ".join(repr(name) for name in ROPE_TYPES)
        reader.problem(f"rope_type: got {shorten(kind)}, expected one of {expected}")
    return None


def _read_yarn(reader: ConfigReader, outer: ConfigReader) -> YarnScaling:
    """The attention factor is that of the YaRN paper, 0.1 ln(factor) + 1, or the ratio of two such
    with DeepSeek's ``mscale`` and ``mscale_all_dim``, where the config does not state it."""
    factor = reader.positive("factor")
    original = _original_context(reader, outer, outer.integer("max_position_embeddings"))
    above, below = reader.get("mscale"), reader.get("mscale_all_dim")
    attention = _mscale(factor, 1.0)
    if above and below:
        attention = _mscale(factor, reader.positive("mscale"))
        attention /= _mscale(factor, reader.positive("mscale_all_dim"))
    fast, slow = reader.positive("beta_fast", 32.0), reader.positive("beta_slow", 1.0)
    reader.require(slow < fast, f"beta_fast: got {fast}, expected more than beta_slow {slow}")
    return YarnScaling(
        factor=factor,
        attention_factor=reader.positive("attention_factor", attention),
        beta_fast=fast,
        beta_slow=slow,
        original_context=original,
        truncate=reader.flag("truncate", True),
    )


def _mscale(factor: float, weight: float) -> float:
    return 1.0 if factor <= 1.0 else 0.1 * weight * math.log(factor) + 1.0


def _read_longrope(reader: ConfigReader, outer: ConfigReader) -> LongRopeScaling:
    """The attention factor is LongRoPE's sqrt(1 + ln(factor) / ln(original length)) where the
    config does not state it; the factor is the ratio of the two lengths where it states none."""
    original = _original_context(reader, outer)
    extended = outer.integer("max_position_embeddings", original)
    factor = reader.positive("factor", extended / original)
    attention = 1.0
    if factor > 1.0 and original > 1:
        attention = math.sqrt(1.0 + math.log(factor) / math.log(original))
    return LongRopeScaling(
        short=reader.divisors("short_factor"),
        long=reader.divisors("long_factor"),
        original_context=original,
        attention_factor=reader.positive("attention_factor", attention),
    )


def _original_context(reader: ConfigReader, outer: ConfigReader, default: int | None = None) -> int:
    key = "original_max_position_embeddings"
    top = outer.get(key)
    if top is None:
        return reader.integer(key, default)
    original = outer.integer(key)
    reader.neutral(key, top)  # where both are given they must agree
    return original


def inverse_frequencies(config: ModelConfig, context: int) -> torch.Tensor:
    """Angle per position of each rotated pair in a program of ``context`` tokens, float64
    [rotary_dim / 2].

    The base rule is theta^(-2i / rotary_dim) (RoFormer, section 3.2.2). llama3 is the rule
    published with Llama 3.1: wavelengths beyond original / low are slowed by ``factor``, those
    under original / high are kept, and a linear ramp over original / wavelength blends in between.
    yarn is section 3.2 of the YaRN paper (arXiv 2309.00071): a ramp over the pairs instead.
    longrope divides by the factors of the program's regime.
    """
    dim = config.rotary_dim
    exponents = torch.arange(0, dim, 2, dtype=torch.float64) / dim
    base = config.rope_theta**-exponents
    match config.rope_scaling:
        case None:
            return base
        case LinearScaling(factor):
            return base / factor
        case FrequencyDivisors(values):
            return base / torch.tensor(values, dtype=torch.float64)
        case LongRopeScaling(short, long, original):
            values = short if context <= original else long
            return base / torch.tensor(values, dtype=torch.float64)
        case Llama3Scaling(factor, low, high, original):
            turns = original * base / (2 * math.pi)  # rotations within the original context
            kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
            return base * (kept + (1.0 - kept) / factor)
        case YarnScaling() as yarn:
            first, last = (
                # the (fractional) pair that turns this often within the original context
                dim
                * math.log(yarn.original_context / (turns * 2 * math.pi))
                / (2 * math.log(config.rope_theta))
                for turns in (yarn.beta_fast, yarn.beta_slow)
            )
            if yarn.truncate:
                first, last = math.floor(first), math.ceil(last)
            first, last = max(first, 0), min(last, dim - 1)
            if first == last:
                last += 0.001  # a step instead of a ramp
            pairs = torch.arange(dim // 2, dtype=torch.float64)
            slowed = ((pairs - first) / (last - first)).clamp(0.0, 1.0)
            return base * (slowed / yarn.factor + (1.0 - slowed))


def rope_tables(config: ModelConfig, context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines for positions 0..context-1, float32 [context, rotary_dim / 2] each,
    times the attention factor of the scaling rule, computed in float64 and rounded once.

    ``context`` is the program's and decides the regime of LongRoPE."""
    factor = 1.0
    if isinstance(config.rope_scaling, LongRopeScaling | YarnScaling):
        factor = config.rope_scaling.attention_factor
    frequencies = inverse_frequencies(config, context)
    cos, sin = (torch.empty(context, len(frequencies), dtype=torch.float32) for _ in range(2))
    for begin in range(0, context, _BLOCK):
        end = min(begin + _BLOCK, context)
        angles = torch.outer(torch.arange(begin, end, dtype=torch.float64), frequencies)
        cos[begin:end] = angles.cos() * factor
        sin[begin:end] = angles.sin() * factor
    return cos, sin


def rope_note(config: ModelConfig, context: int) -> str | None:
    """A line for the report where the program's context decides what is computed."""
    scaling = config.rope_scaling
    if not isinstance(scaling, LongRopeScaling):
        return None
    regime, relation = (
        ("short", "within") if context <= scaling.original_context else ("long", "beyond")
    )
    return (
        f"rope: the {regime} factors of longrope, for a context {relation} the "
        f"{scaling.original_context} tokens trained with first, at every length "
        f"(attention factor {scaling.attention_factor:.6g})"
    )
