"""Facts of a model from GGUF metadata: its keys are those of the architecture, translated by the
family's own map to Hugging Face's, so that each family has one reader."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import CheckpointError, ConfigError
from edge_llm.llm.checkpoints.arrays import to_float32
from edge_llm.llm.checkpoints.gguf.model import GGUFModel
from edge_llm.llm.config import is_integer, is_positive, shorten
from edge_llm.llm.decoder import FULL, SLIDING, DecoderConfig
from edge_llm.llm.families.family import Family
from edge_llm.llm.registry import FAMILIES, read_config
from edge_llm.llm.rope import DEFAULT_THETA, DIVIDED, Llama3Scaling, Rope
from edge_llm.llm.rope_tables import inverse_frequencies

# Config keys whose GGUF keys every file must have.
REQUIRED_KEYS = (
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "rms_norm_eps",
)
POOLING = "pooling_type"
RANKING_LABELS = "classifier.output_labels"
ATTENTION_FACTOR = "rope.scaling.attn_factor"
CAUSAL, BIDIRECTIONAL = "attention.causal", "use_bidirectional_attention"
LOG_MULTIPLIER = "rope.scaling.yarn_log_multiplier"
# Keys that have one supported value, where a rule or a family has no use for them: LongRoPE alone
# takes another attention factor, YaRN another logarithm's, Ministral 3 a temperature.
NEUTRAL_KEYS = {
    ATTENTION_FACTOR: 1.0,
    CAUSAL: True,
    "attention.sliding_window": 0,
    "expert_count": 0,
    "expert_used_count": 0,
    "rope.scaling.yarn_ext_factor": 1.0,
    LOG_MULTIPLIER: 0.0,
    "attention.temperature_scale": 0.0,
}
PREDICTING_LAYERS = "nextn_predict_layers"  # of the blocks, the last
ORIGINAL_CONTEXT = "rope.scaling.original_context_length"
# The factor of a linear scaling: its key, and that of files from before there were types.
LINEAR_FACTORS = ("rope.scaling.factor", "rope.scale_linear")
# Those of YaRN, by the names in Hugging Face's rope_parameters.
YARN_KEYS = {
    "attention_factor": "rope.scaling.yarn_attn_factor",
    "beta_fast": "rope.scaling.yarn_beta_fast",
    "beta_slow": "rope.scaling.yarn_beta_slow",
}
# The rule that Llama 3.1 and 3.2 share, but for its factor.
LLAMA3_RULE = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

ROPE_FREQS = "rope_freqs.weight"
LONG_FACTORS, SHORT_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight"
ROPE_TABLES = (ROPE_FREQS, LONG_FACTORS, SHORT_FACTORS)


def gguf_family(model: GGUFModel) -> Family[Any]:
    """Return the family of the architecture that the metadata names; of several with that name the
    first whose keys tell all that the file says, or the first of them.

    Raises:
        ConfigError: none of that name.
    """
    name = model.metadata.get("general.architecture")
    families = [family for family in FAMILIES.values() if name in family.gguf_architectures]
    if not isinstance(name, str) or not families:
        known = dict.fromkeys(
            known for family in FAMILIES.values() for known in family.gguf_architectures
        )
        raise ConfigError(
            f"{model.path}: general.architecture: got {shorten(name)}, "
            f"expected one of {', '.join(known)}"
        )
    said = {key for key, value in _given(model, name).items() if value != NEUTRAL_KEYS.get(key)}
    own = {key for family in families for key in family.gguf_keys.values()} & said
    return next((f for f in families if own <= set(f.gguf_keys.values())), families[0])


def gguf_config(model: GGUFModel, family: Family[Any]) -> DecoderConfig:
    """Return the facts, with the rope tables that some models carry as tensors.

    Raises:
        CheckpointError: a rope table at fault.
        ConfigError: metadata that cannot be honoured, listing every key.
    """
    architecture = model.architecture
    prefix = f"{architecture}."
    given = _given(model, architecture)
    # Values are as wide as keys, in layers with a window too, and where these have ropes of their
    # own, so is what rotates.
    as_wide = ["attention.value_length"]
    if family.gguf_ropes is not None:
        as_wide.append("rope.dimension_count")
    widths = {
        f"{key}{end}": given.get(f"attention.key_length{end}")
        for key, end in product(as_wide, ("", "_swa"))
    }
    problems = [
        f"{prefix}{key}: missing"
        for key in map(family.gguf_keys.__getitem__, REQUIRED_KEYS)
        if given.get(key) is None
    ]
    variant = family.gguf_variants.get(architecture, {})
    neutral = {**NEUTRAL_KEYS}
    if variant.get(BIDIRECTIONAL):
        neutral[CAUSAL] = False
    values: dict[str, object] = {}
    for name, key in family.gguf_keys.items():
        value = given.pop(key, None)
        values[name] = None if key in neutral and value == neutral[key] else value
    values["layer_types"] = _layer_types(values.get("layer_types"), values["num_hidden_layers"])
    values |= {"model_type": family.name, **variant}
    values["tie_word_embeddings"] = "output.weight" not in model
    if values["vocab_size"] is None and "token_embd.weight" in model:
        values["vocab_size"] = model.shape("token_embd.weight")[0]
    dim, heads = values["hidden_size"], values["num_attention_heads"]
    if values["head_dim"] is None and is_integer(dim) and is_integer(heads) and heads > 0:
        values["head_dim"] = dim // heads
    implied = dict(family.gguf_implied(values))
    implied_rope = cast(Mapping[str, object], implied.pop("rope_parameters", {}))
    for name, value in implied.items():
        if values.get(name) is None or isinstance(values[name], list):
            values[name] = value
    for key in (POOLING, RANKING_LABELS):  # of vectors and rerankers: open.py
        given.pop(key, None)
    predicting, layers = given.pop(PREDICTING_LAYERS, 0), values["num_hidden_layers"]
    if is_integer(predicting) and is_integer(layers) and 0 < predicting < layers:
        values["num_hidden_layers"] = layers - predicting
    elif predicting != 0:
        problems.append(f"{prefix}{PREDICTING_LAYERS}: got {shorten(predicting)}, expected fewer")
    values |= family.gguf_found(values, {name: model.shape(name) for name in model.owners})
    if family.gguf_ropes is None:
        values["rope_parameters"] = {**_rope(model, given, values), **implied_rope}
    else:
        divisors = _table(model, ROPE_FREQS) if ROPE_FREQS in model else None
        values["rope_parameters"] = family.gguf_ropes(given, divisors)
    for key, value in (neutral | widths).items():
        value = values["head_dim"] if value is None else value
        got = given.pop(key, value)
        if got != value:
            problems.append(f"{prefix}{key}: got {shorten(got)}, expected {value!r}")
    problems += [
        f"{prefix}{key}: got {shorten(value)}, a key not supported"
        for key, value in given.items()
        if key not in family.gguf_harmless
    ]
    if problems:
        listing = "".join(f"\n  {problem}" for problem in problems)
        raise ConfigError(f"{model.path} cannot be honoured:{listing}")
    return read_config(values, str(model.path))[0]


def _layer_types(sliding: object, layers: object) -> object:
    """Return Hugging Face's kind of each layer, given whether it has a window; what is no list of
    that stays."""
    if isinstance(sliding, bool) and is_integer(layers):  # the same for all
        sliding = [sliding] * layers
    if not isinstance(sliding, list) or not all(isinstance(one, bool) for one in sliding):
        return sliding
    return [SLIDING if one else FULL for one in sliding]


def predicting_layers(model: GGUFModel, config: DecoderConfig) -> range:
    """Return the numbers of the layers that follow those of ``config``: they predict further
    tokens, and nothing runs them."""
    layers = _single(model.metadata.get(f"{model.architecture}.block_count"))
    assert is_integer(layers)  # as `gguf_config` has found
    return range(config.num_hidden_layers, layers)


def _given(model: GGUFModel, architecture: str) -> dict[str, object]:
    """Return the keys of the architecture, without its name. What stands there once for each layer,
    always the same, counts as one value."""
    prefix = f"{architecture}."
    return {
        key.removeprefix(prefix): _single(value)
        for key, value in model.metadata.items()
        if key.startswith(prefix)
    }


def _single(value: object) -> object:
    if isinstance(value, list) and value and all(item == value[0] for item in value):
        return value[0]
    return value


def _rope(
    model: GGUFModel, given: dict[str, object], values: dict[str, object]
) -> dict[str, object]:
    """Return Hugging Face's ``rope_parameters``; takes the keys that it reads out of ``given``, and
    gives ``values`` the length before scaling."""
    rope: dict[str, object] = {"rope_theta": given.pop("rope.freq_base", None)}
    rotated, head_dim = given.pop("rope.dimension_count", None), values["head_dim"]
    if is_integer(rotated) and is_integer(head_dim) and 0 < rotated != head_dim > 0:
        fraction = rotated / head_dim
        # Upwards where the product with head_dim would be a little less than what was given.
        exact = int(fraction * head_dim) == rotated
        rope["partial_rotary_factor"] = fraction if exact else math.nextafter(fraction, math.inf)
    elif rotated not in (None, head_dim):
        rope["partial_rotary_factor"] = rotated
    factors = [given.pop(key, None) for key in LINEAR_FACTORS]
    factor = next((value for value in factors if value is not None), None)
    # llama.cpp takes a factor of 0 for none.
    kind = given.pop("rope.scaling.type", "none" if factor in (None, 0) else "linear")
    original = given.pop(ORIGINAL_CONTEXT, None)
    given.pop("rope.scaling.finetuned", None)  # how a scaling came to be, not what it is
    if LONG_FACTORS in model:  # older files state no type
        kind = "longrope"
        rope |= {"short_factor": _decimals(model, SHORT_FACTORS)}
        rope |= {"long_factor": _decimals(model, LONG_FACTORS)}
        rope |= _attention_factor(model, given.pop(ATTENTION_FACTOR, 1.0), original, values)
    elif kind == "yarn":
        rope |= {name: given.pop(key, None) for name, key in YARN_KEYS.items()}
        if weight := given.pop(LOG_MULTIPLIER, None):
            rope |= {"mscale": 1.0, "mscale_all_dim": weight}
    if kind not in ("longrope", "none") and factor is not None:
        rope["factor"] = factor
    if kind in ("longrope", "yarn"):
        values["original_max_position_embeddings"] = original
    if ROPE_FREQS in model:
        return rope | _divided(model, kind, rope, head_dim, rotated)
    return rope | {"rope_type": "default" if kind == "none" else kind}


def _decimals(model: GGUFModel, name: str) -> list[float] | None:
    """Return a table as the shortest decimals of its float32 numbers, which are what it was made
    from."""
    if name not in model:
        return None
    return [float(str(value)) for value in _table(model, name)]


def _table(model: GGUFModel, name: str) -> NDArray[np.float32]:
    """Return a rope table.

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


def _attention_factor(
    model: GGUFModel, given: object, original: object, values: Mapping[str, object]
) -> dict[str, object]:
    """Return LongRoPE's attention factor, where the file says another than LongRoPE's own, beyond
    float32's rounding.

    Raises:
        ConfigError: it is no number above 0.
    """
    if not is_positive(given):
        raise ConfigError(
            f"{model.path}: {ATTENTION_FACTOR}: got {shorten(given)}, expected a number above 0"
        )
    context = values["max_position_embeddings"]
    if is_integer(original) and original > 1 and is_integer(context) and context >= original:
        own = math.sqrt(1.0 + math.log(context / original) / math.log(original))
        if math.isclose(given, own, rel_tol=1e-6):
            return {}
    return {"attention_factor": float(given)}


def _divided(
    model: GGUFModel, kind: object, rope: Mapping[str, object], head_dim: object, rotated: object
) -> dict[str, object]:
    """Return Llama 3's scaling, which is stored as its outcome: one divisor for each rotary
    frequency.

    Where they are those of the rule that Llama 3.1 and 3.2 share, the rule is taken, whose tables
    are free of the rounding of the divisors."""
    columns = head_dim if rotated is None else rotated
    divisors = _table(model, ROPE_FREQS)
    if kind != "none" or not is_integer(columns) or 2 * len(divisors) != columns:
        raise CheckpointError(
            f"{model.path}: {ROPE_FREQS}: got shape {list(divisors.shape)} and rope scaling "
            f"{shorten(kind)}, expected one divisor for each pair of {shorten(columns)} columns "
            "and no other scaling"
        )
    theta, factor = rope["rope_theta"], float(divisors.max())
    if theta is None or is_positive(theta):
        plain = Rope(DEFAULT_THETA if theta is None else float(theta), columns)
        ruled = Rope(plain.theta, columns, Llama3Scaling(factor, 1.0, 4.0, 8192))
        expected = inverse_frequencies(plain, 1) / inverse_frequencies(ruled, 1)
        if np.allclose(divisors.astype(np.float64), expected, rtol=1e-5, atol=0.0):
            return {"rope_type": "llama3", "factor": factor, **LLAMA3_RULE}
    return {"rope_type": DIVIDED, "divisors": divisors.tolist()}
