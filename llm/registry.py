"""The known model families, and what follows from a config without building its module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import ConfigError
from edge_llm.extras import require_extra
from edge_llm.llm.blueprints.quantities import structure
from edge_llm.llm.blueprints.shipped import blueprint_of, is_stale
from edge_llm.llm.config import ConfigReader, shorten
from edge_llm.llm.decoder import DecoderConfig, ropes_of
from edge_llm.llm.families.exaone4 import EXAONE4
from edge_llm.llm.families.family import Family
from edge_llm.llm.families.gemma2 import GEMMA2
from edge_llm.llm.families.gemma3_text import GEMMA3_TEXT
from edge_llm.llm.families.gemma4_text import GEMMA4_TEXT
from edge_llm.llm.families.gemma4_unified_text import GEMMA4_UNIFIED_TEXT
from edge_llm.llm.families.gpt_oss import GPT_OSS
from edge_llm.llm.families.granite import GRANITE
from edge_llm.llm.families.granitemoehybrid import GRANITEMOEHYBRID
from edge_llm.llm.families.lfm2 import LFM2
from edge_llm.llm.families.lfm2_moe import LFM2_MOE
from edge_llm.llm.families.llama import LLAMA
from edge_llm.llm.families.ministral3 import MINISTRAL3
from edge_llm.llm.families.mistral import MISTRAL
from edge_llm.llm.families.olmo2 import OLMO2
from edge_llm.llm.families.olmo3 import OLMO3
from edge_llm.llm.families.olmoe import OLMOE
from edge_llm.llm.families.phi3 import PHI3
from edge_llm.llm.families.phimoe import PHIMOE
from edge_llm.llm.families.quantized_llama import QUANTIZED_LLAMA
from edge_llm.llm.families.qwen2 import QWEN2
from edge_llm.llm.families.qwen2_moe import QWEN2_MOE
from edge_llm.llm.families.qwen3 import QWEN3
from edge_llm.llm.families.qwen3_5_moe_text import QWEN3_5_MOE_TEXT
from edge_llm.llm.families.qwen3_5_text import QWEN3_5_TEXT
from edge_llm.llm.families.qwen3_moe import QWEN3_MOE
from edge_llm.llm.families.smollm3 import SMOLLM3
from edge_llm.llm.rope_tables import rope_note, rope_tables, table_names
from edge_llm.llm.stacks import members

FAMILIES: Mapping[str, Family[Any]] = {
    family.name: family
    for family in (
        EXAONE4,
        GEMMA2,
        GEMMA3_TEXT,
        GEMMA4_TEXT,
        GEMMA4_UNIFIED_TEXT,
        GPT_OSS,
        GRANITE,
        GRANITEMOEHYBRID,
        LFM2,
        LFM2_MOE,
        LLAMA,
        MINISTRAL3,
        MISTRAL,
        OLMO2,
        OLMO3,
        OLMOE,
        PHI3,
        PHIMOE,
        QUANTIZED_LLAMA,
        QWEN2,
        QWEN2_MOE,
        QWEN3,
        QWEN3_MOE,
        QWEN3_5_MOE_TEXT,
        QWEN3_5_TEXT,
        SMOLLM3,
    )
}


def read_config(values: Mapping[str, object], where: str) -> tuple[DecoderConfig, tuple[str, ...]]:
    """Return the family's facts from a Hugging Face config, and the keys that were neither read
    nor known as harmless.

    ``where`` names the config in errors.

    Raises:
        ConfigError: an unknown family, or every key that cannot be honoured.
    """
    name = values.get("model_type")
    family = FAMILIES.get(name) if isinstance(name, str) else None
    if family is None:
        inside = [f for f in FAMILIES.values() if f.wrapper and f.wrapper == name]
        if not inside:
            expected = ", ".join(map(repr, _model_types()))
            raise ConfigError(
                f"{where}: model_type: got {shorten(name)}, expected one of {expected}"
            )
        values = text_config(values, where)
        family = _inner_family(inside, values, where)
    given = {key: value for key, value in values.items() if value is not None}
    absent = {key: value for key, value in family.defaults.items() if key not in given}
    reader = ConfigReader({**values, **absent}, where)
    config: DecoderConfig = family.read(reader)
    return config, reader.finish(family.harmless)


def text_config(values: Mapping[str, object], where: str) -> Mapping[str, object]:
    """Return the config of the text model in that of a model of several parts.

    Raises:
        ConfigError: there is none.
    """
    inner = values.get("text_config")
    if not isinstance(inner, Mapping):
        raise ConfigError(f"{where}: text_config: got {shorten(inner)}, expected an object")
    tied = values.get("tie_word_embeddings")  # of the whole model, whose head it is
    return inner if tied is None else {**inner, "tie_word_embeddings": tied}


def _inner_family(
    inside: Sequence[Family[Any]], values: Mapping[str, object], where: str
) -> Family[Any]:
    """Return the family of a text model, of those ``inside`` such a model; the last of them where
    it does not say which.

    Raises:
        ConfigError: it is none of them.
    """
    name = values.get("model_type")
    if name is None:
        return inside[-1]
    family = next((family for family in inside if family.name == name), None)
    if family is None:
        expected = " or ".join(repr(family.name) for family in inside)
        raise ConfigError(
            f"{where}: text_config.model_type: got {shorten(name)}, expected {expected}"
        )
    return family


def _model_types() -> list[str]:
    wrappers = (family.wrapper for family in FAMILIES.values() if family.wrapper)
    return [*FAMILIES, *dict.fromkeys(wrappers)]


def constants(config: DecoderConfig, context: int) -> dict[str, NDArray[np.float32]]:
    """Return the values of the buffers that follow from the config alone, by their name in the
    module."""
    tables: dict[str, NDArray[np.float32]] = {}
    for index, rope in enumerate(ropes_of(config)):
        tables |= zip(table_names(index), rope_tables(rope, context), strict=True)
    return tables


def context_notes(config: DecoderConfig, context: int) -> list[str]:
    """Return lines for the report where the program's context decides what is computed."""
    notes = (rope_note(rope, context) for rope in ropes_of(config))
    return [note for note in notes if note is not None]


def shared_parameters(config: DecoderConfig) -> Mapping[str, str]:
    """Return the parameters that share the values of another one -> that other one.

    Raises:
        MissingDependencyError: the module must be built to tell, and PyTorch is not installed.
    """
    blueprint = blueprint_of(config)
    return _built(config)[1] if blueprint is None else blueprint.tied


def parameter_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every parameter that a checkpoint holds: all but the tied ones, and
    of a stack its members.

    Raises:
        MissingDependencyError: the module must be built to tell, and PyTorch is not installed.
    """
    blueprint = blueprint_of(config)
    if blueprint is None:
        shapes, tied = _built(config)
    else:
        tables = {name for i in range(len(ropes_of(config))) for name in table_names(i)}
        weights = blueprint.plan(config, context=1).weights
        shapes = {weight.name: weight.shape for weight in weights if weight.name not in tables}
        tied = blueprint.tied
    return {
        member: matrix
        for name, shape in shapes.items()
        if name not in tied
        for member, matrix in members(name, shape).items()
    }


def require_module(config: DecoderConfig) -> None:
    """Check that the module of ``config`` can be built, where no blueprint tells what it has.

    Raises:
        MissingDependencyError: PyTorch is not installed.
    """
    what = f"tracing a {config.model_type} model ({structure(config)})"
    if is_stale(config.model_type):
        what += ", whose plan is older than its module (`make plans` draws it again),"
    require_extra("export", what)


def _built(config: DecoderConfig) -> tuple[dict[str, tuple[int, ...]], Mapping[str, str]]:
    """Return name and shape of every parameter of the module of ``config``, and those that share
    another's values."""
    require_module(config)
    from edge_llm.llm.models.build import parameters_of_module

    return parameters_of_module(config)
