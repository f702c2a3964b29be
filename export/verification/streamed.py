"""The eager oracle: a model that reads and quantizes its weights as it runs, a few rows at a time,
so that one of any size runs in the memory of its activations."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from edge_llm.export.verification.eager import integer_linear
from edge_llm.export.weights.parameters import Parameters
from edge_llm.export.weights.prepared import row_chunks
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.llm.models.build import build_model
from edge_llm.llm.registry import constants
from edge_llm.program.formats import WeightFormat
from edge_llm.program.integers import Integers


class StreamedLinear(nn.Module):
    """A linear layer that holds no weight; integer formats go through torchao's arithmetic."""

    def __init__(
        self, parameters: Parameters, name: str, form: WeightFormat, bias: torch.Tensor | None
    ) -> None:
        super().__init__()
        self._source, self._name, self._format = parameters, name, form
        self._bias = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, K) -> (rows, N), as torchao computes it for integer formats."""
        matrix = self._source.matrix(self._name, self._format)
        parts = []
        for chunk in row_chunks(*matrix.shape):
            weight = matrix.prepare(chunk).weight
            if isinstance(weight, Integers):
                parts.append(integer_linear(x, weight))
            else:
                parts.append(functional.linear(x, torch.from_numpy(weight.values)))
        out = torch.cat(parts, dim=-1)
        return out if self._bias is None else out + self._bias


class StreamedEmbedding(nn.Module):
    """An embedding that reads and quantizes the rows it is asked for."""

    def __init__(self, parameters: Parameters, name: str, form: WeightFormat) -> None:
        super().__init__()
        self._source, self._name, self._format = parameters, name, form

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(T,) -> (T, dim) float32."""
        rows = self._source.matrix(self._name, self._format).prepare(tokens.numpy()).weight
        return torch.from_numpy(rows.dequantize())


def streamed_model(
    config: DecoderConfig,
    parameters: Parameters,
    formats: Mapping[str, WeightFormat],
    *,
    context: int,
    slots: int,
    tokens: int,
    kv_dtype: torch.dtype,
) -> nn.Module:
    """An eager model with the recipe's numbers that reads its weights as it goes.

    ``formats`` says how each matrix is stored; ``context`` is the program's (it fixes the
    rotary tables), ``slots`` and ``tokens`` the sequences and positions to make room for.
    """
    model = build_model(config, context=context, kv_dtype=kv_dtype, slots=slots)
    tables = constants(config, context)
    for path, module in list(model.named_modules()):
        parent, _, attribute = path.rpartition(".")
        weight = f"{path}.weight"
        if isinstance(module, nn.Linear):
            bias = None
            if module.bias is not None:
                bias = torch.from_numpy(parameters.vector(f"{path}.bias"))
            streamed: nn.Module = StreamedLinear(parameters, weight, formats[weight], bias)
        elif isinstance(module, nn.Embedding):
            streamed = StreamedEmbedding(parameters, weight, formats[weight])
        else:
            continue
        model.get_submodule(parent).register_module(attribute, streamed)
    for path, parameter in list(model.named_parameters()):
        parent, _, attribute = path.rpartition(".")
        values = torch.from_numpy(parameters.vector(path)).to(parameter.dtype)
        filled = nn.Parameter(values, requires_grad=False)
        model.get_submodule(parent).register_parameter(attribute, filled)
    for path, buffer in list(model.named_buffers()):
        parent, _, attribute = path.rpartition(".")
        if path in tables:
            value = torch.from_numpy(tables[path])
        else:
            value = torch.zeros((slots, tokens, *buffer.shape[2:]), dtype=buffer.dtype)
        model.get_submodule(parent).register_buffer(attribute, value, persistent=False)
    return model.eval()
