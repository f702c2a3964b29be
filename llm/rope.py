"""Rotary position embedding: its rules, and how they are read from configs."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from edge_llm.llm.config import ConfigReader, shorten

DEFAULT_THETA = 10_000.0

ROPE_TYPES = ("default", "linear", "llama3", "longrope", "proportional", "yarn")
DIVIDED = "divided"  # ours: one divisor for each frequency, as GGUF files store them


@dataclass(frozen=True, slots=True)
class LinearScaling:
    """Every rotary frequency divided by ``factor``."""

    factor: float


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Llama 3.1's rule: long wavelengths divided by ``factor``, short ones kept, a ramp between.

    ``original_context`` is in tokens; the two frequency factors divide it to give the wavelengths
    where the ramp ends and begins."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int


@dataclass(frozen=True, slots=True)
class FrequencyDivisors:
    """One divisor for each rotary frequency, as GGUF files store a scaling rule's outcome."""

    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class YarnScaling:
    """YaRN: frequencies that turn fewer than ``beta_slow`` times within ``original_context`` tokens
    are divided by ``factor``, those beyond ``beta_fast`` kept, a ramp over the pairs between.

    ``truncate`` rounds the ends of the ramp outwards to whole pairs. Cosines and sines are
    multiplied by ``attention_factor``."""

    factor: float
    attention_factor: float
    beta_fast: float
    beta_slow: float
    original_context: int
    truncate: bool


@dataclass(frozen=True, slots=True)
class LongRopeScaling:
    """LongRoPE: one divisor for each rotary frequency, ``short`` for programs within
    ``original_context`` tokens and ``long`` beyond.

    Cosines and sines are multiplied by ``attention_factor`` in both regimes."""

    short: tuple[float, ...]
    long: tuple[float, ...]
    original_context: int
    attention_factor: float


@dataclass(frozen=True, slots=True)
class ProportionalScaling:
    """Every frequency divided by ``factor``; of all pairs of columns the first ``pairs`` rotate."""

    pairs: int
    factor: float


RopeScaling = (
    ProportionalScaling
    | LinearScaling
    | Llama3Scaling
    | FrequencyDivisors
    | YarnScaling
    | LongRopeScaling
)


@dataclass(frozen=True, slots=True)
class Growth:
    """A factor that grows with the position: 1 + beta ln(1 + floor(position / length)), ``length``
    in tokens."""

    beta: float
    length: int


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary embedding of the first ``dim`` columns of each head: its base frequency and the rule
    that scales its frequencies, None where none does. What it rotates is also multiplied by
    ``growth``, if there is one: of all columns, since ``dim`` is then that of the whole head."""

    theta: float
    dim: int
    scaling: RopeScaling | None = None
    growth: Growth | None = None


def read_rope(
    reader: ConfigReader,
    head_dim: int,
    *,
    theta: float = DEFAULT_THETA,
    partial: bool = False,
    growing: bool = False,
    fraction: float = 1.0,
    mscales: bool = False,
    harmless: Collection[str] = (),
) -> Rope:
    """Return the rotary embedding that a config asks for, from ``rope_parameters`` (transformers 5)
    or from ``rope_theta`` and ``rope_scaling`` (version 4).

    ``theta`` is the base frequency of a config that states none, ``partial`` says that the family
    can rotate a part of the ``head_dim`` columns of a head, ``fraction`` where the config does not
    say which, and ``growing`` that its queries can grow with the position
    (``llama_4_scaling_beta``): what is returned is then theirs. With ``mscales`` LongRoPE's
    attention factor is called ``short_mscale`` and ``long_mscale``. ``harmless`` are parameters
    that may have any value. The length trained with before scaling may stand beside the other
    parameters or at the top level of the config.
    """
    theta = reader.positive("rope_theta", theta)
    sources = {key: reader.get(key) for key in ("rope_parameters", "rope_scaling")}
    given = {key: value for key, value in sources.items() if value is not None}
    if len(given) == 2:
        reader.problem("rope_scaling: got both it and rope_parameters, expected one of them")
    fraction = _fraction(reader, fraction, partial)
    return _rope(reader, head_dim, given, theta, fraction, partial, growing, mscales, harmless)


def read_ropes(
    reader: ConfigReader, head_dim: int | Mapping[str, int], thetas: Mapping[str, float]
) -> dict[str, Rope] | None:
    """Return the rotary embedding of each kind of layer, where ``rope_parameters`` has an object
    for each (transformers 5); None where it has not. ``thetas`` are the base frequencies of the
    kinds, where the config states none; ``head_dim`` may differ between them."""
    given = reader.get("rope_parameters")
    if not isinstance(given, Mapping) or not given.keys() & thetas.keys():
        return None
    reader.neutral("rope_scaling", None)
    kinds = ConfigReader(given, "rope_parameters")
    ropes = {}
    for kind, theta in thetas.items():
        value = kinds.get(kind)
        parameters = {} if value is None else {f"rope_parameters.{kind}": value}
        fraction = _fraction(reader, 1.0, partial=False)
        dim = head_dim if isinstance(head_dim, int) else head_dim[kind]
        ropes[kind] = _rope(reader, dim, parameters, theta, fraction, partial=False)
    reader.absorb(kinds, "rope_parameters")
    return ropes


def _rope(
    reader: ConfigReader,
    head_dim: int,
    given: Mapping[str, object],
    theta: float,
    fraction: float,
    partial: bool,
    growing: bool = False,
    mscales: bool = False,
    harmless: Collection[str] = (),
) -> Rope:
    """Return the rotary embedding that the objects in ``given``, by their place in the config, ask
    for, ``theta`` and ``fraction`` where they do not say it."""
    scaling: RopeScaling | None = None
    beta = _read_beta(reader) if growing else None
    for key, value in given.items():
        if not isinstance(value, Mapping):
            reader.problem(f"{key}: got {shorten(value)}, expected an object")
            continue
        inner = ConfigReader(value, key)
        theta = inner.positive("rope_theta", theta)
        if inner.get("rope_type") == "proportional":
            rotated = int(_fraction(inner, 1.0, partial=True) * head_dim / 2)
            scaling = ProportionalScaling(rotated, inner.positive("factor", 1.0))
        else:
            fraction = _fraction(inner, fraction, partial)
            scaling = _read_scaling(inner, reader, mscales)
        if growing:
            inner.get("max_position_embeddings")  # Ministral 3 repeats it here
            beta = _read_beta(inner) or beta
        for name in harmless:
            inner.get(name)
        if isinstance(scaling, YarnScaling) and theta <= 1.0:
            reader.problem(f"rope_theta: got {theta}, expected more than 1 with yarn")
        reader.absorb(inner, key)
    dim = int(head_dim * fraction)
    reader.require(
        0 < dim <= head_dim and dim % 2 == 0,
        f"partial_rotary_factor: got {fraction}, expected one that rotates an even number of "
        f"the {head_dim} columns of a head",
    )
    for key, divisors in _divisors(scaling).items():
        reader.require(
            len(divisors) == dim // 2,
            f"{key}: got {len(divisors)} numbers, expected {dim // 2}, one for each pair of "
            "rotated columns",
        )
    return Rope(theta, dim, scaling, None if beta is None else _growth(reader, beta, scaling))


def _growth(reader: ConfigReader, beta: float, scaling: RopeScaling | None) -> Growth:
    """Return a growth by the length trained with before scaling."""
    if isinstance(scaling, YarnScaling):
        return Growth(beta, scaling.original_context)
    return Growth(beta, reader.integer("max_position_embeddings"))


def _divisors(scaling: RopeScaling | None) -> dict[str, tuple[float, ...]]:
    match scaling:
        case LongRopeScaling(short, long):
            return {"short_factor": short, "long_factor": long}
        case FrequencyDivisors(values):
            return {"divisors": values}
        case _:
            return {}


def _fraction(reader: ConfigReader, default: float, partial: bool) -> float:
    if not partial:
        reader.neutral("partial_rotary_factor", 1.0)
        return 1.0
    fraction = reader.positive("partial_rotary_factor", default)
    if fraction > 1.0:
        reader.problem(f"partial_rotary_factor: got {fraction}, expected at most 1.0")
        return 1.0
    return fraction


def _read_scaling(reader: ConfigReader, outer: ConfigReader, mscales: bool) -> RopeScaling | None:
    legacy = reader.get("type")  # the name of rope_type in the first releases with scaling
    kind = reader.get("rope_type") or legacy or "default"
    if kind == "su":  # what the first Phi-3 configs call it
        kind = "longrope"
    if kind == DIVIDED:
        return FrequencyDivisors(reader.divisors("divisors"))
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
        return _read_longrope(reader, outer, mscales)
    if kind != "default":
        expected = ", ".join(repr(name) for name in ROPE_TYPES)
        reader.problem(f"rope_type: got {shorten(kind)}, expected one of {expected}")
    return None


def _read_beta(reader: ConfigReader) -> float | None:
    beta = reader.get("llama_4_scaling_beta")
    return reader.positive("llama_4_scaling_beta") if beta else None


def _read_yarn(reader: ConfigReader, outer: ConfigReader) -> YarnScaling:
    """The attention factor is that of the YaRN paper, 0.1 ln(factor) + 1, or the ratio of two such
    with DeepSeek's ``mscale`` and ``mscale_all_dim``, where the config does not state it."""
    context = outer.integer("max_position_embeddings")
    original = _original_context(reader, outer, context)
    stated = None if reader.absent("factor") else context / original
    factor = reader.positive("factor", stated)  # null: the ratio of the two lengths
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


def _read_longrope(reader: ConfigReader, outer: ConfigReader, mscales: bool) -> LongRopeScaling:
    """The attention factor is LongRoPE's sqrt(1 + ln(factor) / ln(original length)) where the
    config does not state it; the factor is the ratio of the two lengths where it states none."""
    original = _original_context(reader, outer)
    extended = outer.integer("max_position_embeddings", original)
    factor = reader.positive("factor", extended / original)
    attention = 1.0
    if factor > 1.0 and original > 1:
        attention = math.sqrt(1.0 + math.log(factor) / math.log(original))
    if mscales:
        short, attention = (
            reader.positive(f"{regime}_mscale", attention) for regime in ("short", "long")
        )
        reader.require(
            short == attention, f"short_mscale: got {short}, expected long_mscale {attention}"
        )
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
