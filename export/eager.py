"""The recipe's numbers in eager PyTorch: torchao's quantized tensor class around our integers.

Used twice: with empty tensors on ``meta``, to trace what a quantized model computes; and with real
ones, in the oracle that an exported program is verified against (streamed.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from edge_llm.export.quantize import FLOAT_DTYPES, group_of
from edge_llm.export.torchao import ActivationQuantization, IntxUnpackedToInt8Tensor
from edge_llm.export.weights import QuantizedWeight


def torchao_tensor(weight: QuantizedWeight, *, activations: bool = True) -> torch.Tensor:
    """``weight`` as torchao's tensor class (float32 towards the outside). With ``activations``,
    ``linear`` rounds its input to int8 per token first; an embedding has none to round."""
    tensor: torch.Tensor = IntxUnpackedToInt8Tensor(
        qdata=weight.q,
        scale=weight.scales,
        zero_point=torch.zeros_like(weight.scales, dtype=torch.int8),
        target_dtype=torch.int8 if weight.format == "i8" else torch.int4,  # type: ignore[attr-defined]
        block_size=(1, weight.group),
        dtype=torch.float32,
        activation_quantization=ActivationQuantization.INT8_ASYM_PER_TOKEN if activations else None,
    )
    return tensor


def quantize_meta(model: nn.Module, formats: Mapping[str, str]) -> None:
    """Replaces, in place, the weights of ``model`` (on ``meta``) whose format has integers by empty
    torchao tensors, so that the traced graph shows every quantization."""
    for path, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Embedding):
            continue
        weight_format = formats[f"{path}.weight"]
        if weight_format in FLOAT_DTYPES:
            continue
        n, k = module.weight.shape
        group = group_of(weight_format, k)
        empty = QuantizedWeight(
            weight_format,
            q=torch.empty(n, k, dtype=torch.int8, device="meta"),
            scales=torch.empty(n, k // group, dtype=torch.float32, device="meta"),
            group=group,
        )
        tensor = torchao_tensor(empty, activations=isinstance(module, nn.Linear))
        module.weight = nn.Parameter(tensor, requires_grad=False)
