"""Integers as torchao's quantized tensor class: what a program's arithmetic must equal.

Symmetric weights alone: torchao has no class for four bits with minima.
"""

from __future__ import annotations

import torch
from torchao.quantization import IntxUnpackedToInt8Tensor
from torchao.quantization.quantize_.workflows.intx.intx_unpacked_to_int8_tensor import (
    IntxUnpackedToInt8TensorActivationQuantization as ActivationQuantization,
)

from edge_llm.program.integers import Integers


def torchao_tensor(weight: Integers, *, activations: bool = True) -> torch.Tensor:
    """Return symmetric integers as torchao's tensor class (float32 towards the outside). With
    ``activations``, ``linear`` rounds its input to int8 per token first; an embedding has none to
    round."""
    form, (n, k) = weight.format, weight.shape
    scale = torch.from_numpy(weight.scale)
    tensor: torch.Tensor = IntxUnpackedToInt8Tensor(
        qdata=torch.from_numpy(weight.codes),
        scale=scale.to(torch.float32),
        zero_point=torch.zeros(n, scale.shape[1], dtype=torch.int8),
        target_dtype=getattr(torch, f"int{form.bits}"),
        block_size=(1, form.group or k),
        dtype=torch.float32,
        activation_quantization=ActivationQuantization.INT8_ASYM_PER_TOKEN if activations else None,
    )
    return tensor
