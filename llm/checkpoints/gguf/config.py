"""Facts of a model from GGUF metadata: its keys are those of the architecture, translated to
Hugging Face's, so that each family has one reader."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import CheckpointError, ConfigError
from edge_llm.llm.checkpoints.arrays import to_float32
from edge_llm.llm.checkpoints.gguf.model import GGUFModel
from edge_llm.llm.config import (
    FrequencyDivisors,
    Llama3Scaling,
    LongRopeScaling,
    ModelConfig,
    is_integer,
    is_number,
    shorten,
)
from edge_llm.llm.family import Family
from edge_llm.llm.registry import FAMILIES, read_config
from edge_llm.llm.rope import inverse_frequencies

# Hugging Face's name of a config key -> the GGUF key behind "ARCHITECTURE.".
REQUIRED_KEYS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "num_attention_heads": "attention.head_count",
    "num_hidden_layers": "block_count",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
OPTIONAL_KEYS = {
    "head_dim": "attention.key_length",
    "num_key_value_heads": "attention.head_count_kv",
    "vocab_size": "vocab_size",
}
# Keys that have one supported value.
NEUTRAL_KEYS = {
    "attention.causal": True,
    "expert_count": 0,
    "expert_used_count": 0,
    "rope.scaling.yarn_ext_factor": 1.0,
    "rope.scaling.yarn_log_multiplier": 0.0,
}
ATTENTION_FACTOR = "rope.scaling.attn_factor"
ORIGINAL_CONTEXT = "rope.scaling.original_context_length"
# Those of YaRN, by the names in Hugging Face's rope_parameters.
YARN_KEYS = {
    "attention_factor": "rope.scaling.yarn_attn_factor",
    "beta_fast": "rope.scaling.yarn_beta_fast",
    "beta_slow": "rope.scaling.yarn_beta_slow",
}
# Architecture -> the family that it is with a sliding window in every layer.
WINDOWED = {"llama": "mistral", "phi3": "phi3"}

ROPE_FREQS = "rope_freqs.weight"
LONG_FACTORS, SHORT_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight"
ROPE_TABLES = (ROPE_FREQS, LONG_FACTORS, SHORT_FACTORS)


def gguf_family(model: GGUFModel) -> Family:
    """The family of the architecture that the metadata names.

    Raises:
        ConfigError: none of that name.
    """
    known = {
        family.gguf_architecture: family
        for family in FAMILIES.values()
        if family.gguf_architecture is not None
    }
    name = model.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in known:
        raise ConfigError(
            f"{model.path}: general.architecture: got {shorten(name)}, "
            f"expected one of {', '.join(known)}"
        )
    return known[name]


def gguf_config(model: GGUFModel, family: Family) -> ModelConfig:
    """The facts, with the rope tables that some models carry as tensors.

    Raises:
        CheckpointError: a rope table at fault.
        ConfigError: metadata that cannot be honoured, listing every key.
    """
    prefix = f"{family.gguf_architecture}."
    given = {
        key.removeprefix(prefix): value
        for key, value in model.metadata.items()
        if key.startswith(prefix)
    }
    problems = [
        f"{prefix}{key}: missing" for key in REQUIRED_KEYS.values() if given.get(key) is None
    ]
    values: dict[str, object] = {
        name: given.pop(key, None) for name, key in (REQUIRED_KEYS | OPTIONAL_KEYS).items()
    }
    values["model_type"] = family.name
    values["tie_word_embeddings"] = "output.weight" not in model
    if values["vocab_size"] is None and "token_embd.weight" in model:
        values["vocab_size"] = model.shape("token_embd.weight")[0]
    dim, heads = values["hidden_size"], values["num_attention_heads"]
    if values["head_dim"] is None and is_integer(dim) and is_integer(heads) and heads > 0:
        values["head_dim"] = dim // heads
    window = given.pop("attention.sliding_window", 0)
    if window != 0 and family.name in WINDOWED:
        values |= {"model_type": WINDOWED[family.name], "sliding_window": window}
    elif window != 0:
        problems.append(f"{prefix}attention.sliding_window: got {shorten(window)}, expected 0")
    values["rope_parameters"] = _rope(model, given, values)
    attention_factor = given.pop(ATTENTION_FACTOR, 1.0)
    if LONG_FACTORS not in model and attention_factor != 1.0:
        problems.append(
            f"{prefix}{ATTENTION_FACTOR}: got {shorten(attention_factor)}, expected 1.0"
        )
    for key, neutral in (NEUTRAL_KEYS | {"attention.value_length": values["head_dim"]}).items():
        value = given.pop(key, neutral)
        if value != neutral:
            problems.append(f"{prefix}{key}: got {shorten(value)}, expected {neutral!r}")
    problems += [
        f"{prefix}{key}: got {shorten(value)}, a key not supported" for key, value in given.items()
    ]
    if problems:
        listing = "".join(f"\n  {problem}" for problem in problems)
        raise ConfigError(f"{model.path} cannot be honoured:{listing}")
    config, _ = read_config(values, str(model.path))
    return _with_divisors(model, _with_attention_factor(model, config, attention_factor))


def _rope(
    model: GGUFModel, given: dict[str, object], values: dict[str, object]
) -> dict[str, object]:
    """Hugging Face's ``rope_parameters``; takes the keys that it reads out of ``given``, and gives
    ``values`` the length before scaling."""
    rope: dict[str, object] = {"rope_theta": given.pop("rope.freq_base", None)}
    rotated, head_dim = given.pop("rope.dimension_count", None), values["head_dim"]
    if is_integer(rotated) and is_integer(head_dim) and 0 < rotated != head_dim > 0:
        fraction = rotated / head_dim
        # Upwards where the product with head_dim would be a little less than what was given.
        exact = int(fraction * head_dim) == rotated
        rope["partial_rotary_factor"] = fraction if exact else math.nextafter(fraction, math.inf)
    elif rotated not in (None, head_dim):
        rope["partial_rotary_factor"] = rotated
    factor = given.pop("rope.scaling.factor", None)
    kind = given.pop("rope.scaling.type", "none" if factor is None else "linear")
    original = given.pop(ORIGINAL_CONTEXT, None)
    given.pop("rope.scaling.finetuned", None)  # how a scaling came to be, not what it is
    if LONG_FACTORS in model:  # older files state no type
        kind = "longrope"
        rope |= {"short_factor": _decimals(model, SHORT_FACTORS)}
        rope |= {"long_factor": _decimals(model, LONG_FACTORS)}
    elif kind == "yarn":
        rope |= {name: given.pop(key, None) for name, key in YARN_KEYS.items()}
        rope["factor"] = factor
    elif kind != "none":
        rope["factor"] = factor
    if kind in ("longrope", "yarn"):
        values["original_max_position_embeddings"] = original
    return rope | {"rope_type": "default" if kind == "none" else kind}


def _decimals(model: GGUFModel, name: str) -> list[float] | None:
    """A table as the shortest decimals of its float32 numbers, which are what it was made from."""
    if name not in model:
        return None
    return [float(str(value)) for value in _table(model, name)]


def _table(model: GGUFModel, name: str) -> NDArray[np.float32]:
    """A rope table in float32.

    Raises:
        CheckpointError: it cannot be decoded, or holds what no table does.
    """
    problem = model.problem(name)
    if problem is not None:
        raise CheckpointError(f"{model.path} is damaged: {problem}")
    shape = model.shape(name)
    if len(shape) != 1 or shape[0] > 2**16:
        raise CheckpointError(f"{model.path}: {name}: got shape {list(shape)}, expected a vector")
    values = to_float32(model.decode(name))
    if not (np.isfinite(values) & (values > 0)).all():
        raise CheckpointError(f"{model.path}: {name} holds values that are not above 0")
    return values


def _with_attention_factor(model: GGUFModel, config: ModelConfig, given: object) -> ModelConfig:
    """The factor is LongRoPE's own unless the file says another, beyond float32's rounding."""
    scaling = config.rope_scaling
    if not isinstance(scaling, LongRopeScaling):
        return config
    if not is_number(given) or not 0 < given < math.inf:
        raise ConfigError(
            f"{model.path}: {ATTENTION_FACTOR}: got {shorten(given)}, expected a number above 0"
        )
    if math.isclose(given, scaling.attention_factor, rel_tol=1e-6):
        return config
    return replace(config, rope_scaling=replace(scaling, attention_factor=float(given)))


def _with_divisors(model: GGUFModel, config: ModelConfig) -> ModelConfig:
    """Llama 3's scaling is stored as its outcome: one divisor for each rotary frequency.

    Where they are those of the rule that Llama 3.1 and 3.2 share, the rule is taken, whose tables
    are free of the rounding of the divisors."""
    if ROPE_FREQS not in model:
        return config
    pairs = config.rotary_dim // 2
    divisors = _table(model, ROPE_FREQS)
    if config.rope_scaling is not None or len(divisors) != pairs:
        raise CheckpointError(
            f"{model.path}: {ROPE_FREQS}: got shape {list(divisors.shape)} and rope scaling "
            f"{config.rope_scaling}, expected [{pairs}] and no other scaling"
        )
    factor = float(divisors.max())
    ruled = replace(config, rope_scaling=Llama3Scaling(factor, 1.0, 4.0, 8192))
    expected = (inverse_frequencies(config, 1) / inverse_frequencies(ruled, 1)).numpy()
    if np.allclose(divisors.astype(np.float64), expected, rtol=1e-5, atol=0.0):
        return ruled
    return replace(config, rope_scaling=FrequencyDivisors(tuple(divisors.tolist())))
