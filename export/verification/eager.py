"""The recipe's numbers in eager PyTorch: torchao's arithmetic around our integers.

Symmetric weights go through torchao's quantized tensor class. It has none for four bits with
minima: there the weight is dequantized by us, exactly, and the input rounded as torchao rounds it.

Used twice: with empty tensors on ``meta``, to trace what a quantized model computes; and with real
ones, in the oracle that an exported program is verified against (streamed.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from edge_llm.export.weights.torchao import (
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


def quantize_meta(model: nn.Module, formats: Mapping[str, WeightFormat]) -> None:
    """Replace, in place, the linears and embeddings of ``model`` (on ``meta``) whose format has
    integers by such that show every quantization in the traced graph."""
    for path, module in list(model.named_modules()):
        if not isinstance(module, nn.Linear | nn.Embedding):
            continue
        form = formats[f"{path}.weight"]
        if form.is_float:
            continue
        if form.minimum != "none":
            stored = (
                StoredLinear(module, form)
                if isinstance(module, nn.Linear)
                else StoredEmbedding(module, form)
            )
            parent, _, attribute = path.rpartition(".")
            model.get_submodule(parent).register_module(attribute, stored)
            continue
        n, k = module.weight.shape
        codes = torch.empty(n, k, dtype=torch.int8, device="meta")
        scale = torch.empty(n, k // (form.group or k), device="meta")
        tensor = _torchao_tensor(form, codes, scale, isinstance(module, nn.Linear))
        module.weight = nn.Parameter(tensor, requires_grad=False)


@torch.library.custom_op("edge::stored_as", mutates_args=())
def stored_as(weight: torch.Tensor, name: str) -> torch.Tensor:
    """Mark in a graph that ``weight`` [N, K] is held in the format ``name``; the values stay. A
    linear of it rounds its input to int8 per token."""
    return weight.clone()


@stored_as.register_fake
def _(weight: torch.Tensor, name: str) -> torch.Tensor:
    return torch.empty_like(weight)


class StoredLinear(nn.Module):
    """A linear layer whose graph says in which format with minima its weight is held."""

    def __init__(self, module: nn.Linear, form: WeightFormat) -> None:
        super().__init__()
        self.weight, self._name = module.weight, form.name
        self.bias = module.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, K) -> (…, N)."""
        # torchao's rounding of x is not traced: its operators switch gradients off and on, which
        # torch.export takes quadratic time to sort out
        weight = torch.ops.edge.stored_as(self.weight, self._name)
        return functional.linear(x, weight, self.bias)


class StoredEmbedding(nn.Module):
    """An embedding whose graph says in which format with minima its table is held."""

    def __init__(self, module: nn.Embedding, form: WeightFormat) -> None:
        super().__init__()
        self.weight, self._name = module.weight, form.name

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(T,) -> (T, dim)."""
        return functional.embedding(tokens, torch.ops.edge.stored_as(self.weight, self._name))


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
