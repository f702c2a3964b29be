"""The known model families, and how a model of one is built and filled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge_llm.errors import ConfigError
from edge_llm.llm.checkpoints.arrays import Array
from edge_llm.llm.checkpoints.detached import detached
from edge_llm.llm.config import ConfigReader, shorten
from edge_llm.llm.decoder import DecoderConfig, ropes_of
from edge_llm.llm.family import Family
from edge_llm.llm.layers import CacheShape, table_names
from edge_llm.llm.llama import LLAMA
from edge_llm.llm.mistral import MISTRAL
from edge_llm.llm.olmo2 import OLMO2
from edge_llm.llm.phi3 import PHI3
from edge_llm.llm.qwen2 import QWEN2
from edge_llm.llm.qwen3 import QWEN3
from edge_llm.llm.rope_tables import rope_note, rope_tables
from edge_llm.llm.smollm3 import SMOLLM3
from edge_llm.llm.tensors import as_tensor

FAMILIES: Mapping[str, Family[Any]] = {
    family.name: family for family in (LLAMA, MISTRAL, OLMO2, PHI3, QWEN2, QWEN3, SMOLLM3)
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
        expected = ", ".join(repr(known) for known in FAMILIES)
        raise ConfigError(f"{where}: model_type: got {shorten(name)}, expected one of {expected}")
    reader = ConfigReader(values, where)
    config: DecoderConfig = family.read(reader)
    return config, reader.finish(family.harmless)


def build_model(
    config: DecoderConfig,
    *,
    context: int,
    kv_dtype: torch.dtype,
    slots: int = 1,
    device: torch.device | str = "meta",
) -> nn.Module:
    """Return the module of ``config`` with KV caches [slots, context, kv_heads, head_dim] (int8:
    with 4 more columns, the bytes of a row's scale).

    On ``meta`` nothing is allocated. Elsewhere buffers have their values and parameters (float32)
    have none: see ``load_model``. Constant buffers are those of ``constants``.

    Raises:
        ConfigError: ``context`` or ``slots`` below 1.
    """
    if context < 1 or slots < 1:
        raise ConfigError(f"context is {context}, slots is {slots}, expected at least 1 of each")
    with torch.device("meta"):
        model = FAMILIES[config.model_type].build(config, CacheShape(slots, context, kv_dtype))
    model.requires_grad_(False).eval()
    if torch.device(device).type == "meta":
        return model
    model.to_empty(device=device)
    values = constants(config, context)
    for name, buffer in model.named_buffers():
        if name in values:
            buffer.copy_(torch.from_numpy(values[name]))
        else:
            buffer.zero_()
    return model


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


def tied_parameters(model: nn.Module) -> dict[str, str]:
    """Return the module's own declaration: parameter -> the parameter whose values it shares."""
    declared = model.tied_parameters
    if not isinstance(declared, dict):
        raise TypeError(f"{type(model).__name__}.tied_parameters is not a dict")
    return declared


def shared_parameters(config: DecoderConfig) -> dict[str, str]:
    """Return `tied_parameters` of the module of ``config``."""
    return tied_parameters(build_model(config, context=1, kv_dtype=torch.float32))


def parameter_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every parameter that a checkpoint holds: all but the tied ones."""
    model = build_model(config, context=1, kv_dtype=torch.float32)
    tied = tied_parameters(model)
    return {
        name: tuple(parameter.shape)
        for name, parameter in model.named_parameters()
        if name not in tied
    }


def load_model(
    config: DecoderConfig,
    array: Callable[[str], Array],
    *,
    context: int,
    kv_dtype: torch.dtype,
    slots: int = 1,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Return a float32 model that runs, filled with a checkpoint's ``array(name)`` (`arrays.Array`)
    one parameter at a time. Tied parameters share memory.

    Raises:
        CheckpointError: a parameter cannot be read.
    """
    model = build_model(config, context=context, kv_dtype=kv_dtype, slots=slots, device=device)
    for name, source in tied_parameters(model).items():
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, model.get_parameter(source))
    for name, parameter in model.named_parameters():
        parameter.copy_(as_tensor(detached(array(name))))
    return model
