"""Build and fill the PyTorch module of a config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from edge_llm.errors import ConfigError
from edge_llm.llm.checkpoints.arrays import Array
from edge_llm.llm.checkpoints.detached import detached
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.llm.models import (
    exaone4,
    gemma2,
    gemma3_text,
    gemma4_text,
    gemma4_unified_text,
    gpt_oss,
    granite,
    granitemoehybrid,
    lfm2,
    lfm2_moe,
    llama,
    ministral3,
    mistral,
    olmo2,
    olmo3,
    olmoe,
    phi3,
    phimoe,
    quantized_llama,
    qwen2,
    qwen2_moe,
    qwen3,
    qwen3_5_moe_text,
    qwen3_5_text,
    qwen3_moe,
    smollm3,
)
from edge_llm.llm.models.layers import CacheShape
from edge_llm.llm.models.tensors import as_tensor
from edge_llm.llm.registry import constants
from edge_llm.llm.stacks import members

# By the family's name; each wires the module of a config, whose parameters are named as in Hugging
# Face checkpoints.
BUILDERS: Mapping[str, Callable[[Any, CacheShape], nn.Module]] = {
    "exaone4": exaone4.build,
    "gemma2": gemma2.build,
    "gemma3_text": gemma3_text.build,
    "gemma4_text": gemma4_text.build,
    "gemma4_unified_text": gemma4_unified_text.build,
    "gpt_oss": gpt_oss.build,
    "granite": granite.build,
    "granitemoehybrid": granitemoehybrid.build,
    "lfm2": lfm2.build,
    "lfm2_moe": lfm2_moe.build,
    "llama": llama.build,
    "ministral3": ministral3.build,
    "mistral": mistral.build,
    "olmo2": olmo2.build,
    "olmo3": olmo3.build,
    "olmoe": olmoe.build,
    "phi3": phi3.build,
    "phimoe": phimoe.build,
    "quantized_llama": quantized_llama.build,
    "qwen2": qwen2.build,
    "qwen2_moe": qwen2_moe.build,
    "qwen3": qwen3.build,
    "qwen3_moe": qwen3_moe.build,
    "qwen3_5_moe_text": qwen3_5_moe_text.build,
    "qwen3_5_text": qwen3_5_text.build,
    "smollm3": smollm3.build,
}


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
        model = BUILDERS[config.model_type](config, CacheShape(slots, context, kv_dtype))
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


def tied_parameters(model: nn.Module) -> dict[str, str]:
    """Return the module's own declaration: parameter -> the parameter whose values it shares."""
    declared = model.tied_parameters
    if not isinstance(declared, dict):
        raise TypeError(f"{type(model).__name__}.tied_parameters is not a dict")
    return declared


def parameters_of_module(
    config: DecoderConfig,
) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Return name and shape of every parameter of the module of ``config``, and its
    `tied_parameters`."""
    model = build_model(config, context=1, kv_dtype=torch.float32)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return shapes, tied_parameters(model)


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
    one parameter, or member of a stack, at a time. Tied parameters share memory.

    Raises:
        CheckpointError: a parameter cannot be read.
    """
    model = build_model(config, context=context, kv_dtype=kv_dtype, slots=slots, device=device)
    for name, source in tied_parameters(model).items():
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, model.get_parameter(source))
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        matrices = parameter if len(shape) == 3 else [parameter]
        for matrix, part in zip(matrices, members(name, shape), strict=True):
            matrix.copy_(as_tensor(detached(array(part))))
    return model
