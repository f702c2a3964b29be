"""The recipe's numbers in eager PyTorch: torchao's arithmetic around our integers.

Symmetric weights go through torchao's quantized tensor class. It has none for four bits with
minima: there the weight is dequantized by us, exactly, and the input rounded as torchao rounds it.
The oracle that an exported program is verified against (streamed.py) is made of these.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from edge_llm.export.verification.torchao import (
    ActivationQuantization,
    IntxUnpackedToInt8Tensor,
    rounded_activations,
)
from edge_llm.program.formats import WeightFormat
from edge_llm.program.integers import Integers


def integer_linear(x: torch.Tensor, weight: Integers) -> torch.Tensor:
    """Multiply float32 ``x`` [rows, K], rounded to int8 per token, by a weight: [rows, N]."""
    if weight.format.minimum == "none":
        return functional.linear(x, torchao_tensor(weight))
    return functional.linear(rounded_activations(x), torch.from_numpy(weight.dequantize()))


def torchao_tensor(weight: Integers, *, activations: bool = True) -> torch.Tensor:
    """Return symmetric integers as torchao's tensor class (float32 towards the outside). With
    ``activations``, ``linear`` rounds its input to int8 per token first; an embedding has none to
    round."""
    codes, scale = torch.from_numpy(weight.codes), torch.from_numpy(weight.scale)
    return _torchao_tensor(weight.format, codes, scale, activations)


def _torchao_tensor(
    form: WeightFormat, codes: torch.Tensor, scale: torch.Tensor, activations: bool
) -> torch.Tensor:
    n, k = codes.shape
    tensor: torch.Tensor = IntxUnpackedToInt8Tensor(
        qdata=codes,
        scale=scale.to(torch.float32),
        zero_point=torch.zeros(n, scale.shape[1], dtype=torch.int8, device=codes.device),
        target_dtype=torch.int8 if form.code == "i8" else torch.int4,  # type: ignore[attr-defined]
        block_size=(1, form.group or k),
        dtype=torch.float32,
        activation_quantization=ActivationQuantization.INT8_ASYM_PER_TOKEN if activations else None,
    )
    return tensor
