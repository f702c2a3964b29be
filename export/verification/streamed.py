"""The eager oracle: a model that reads its weights as it runs, a few rows at a time, so that one of
any size runs in the memory of its activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from edge_llm.export.verification.numbers import Opened
from edge_llm.export.verification.threads import Each
from edge_llm.export.verification.torchao import rounded_activations
from edge_llm.export.weights.prepared import row_chunks
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.llm.models.build import build_model
from edge_llm.llm.models.experts import Experts, gated
from edge_llm.llm.models.quantized_llama import AdaptedLinear
from edge_llm.llm.registry import constants
from edge_llm.llm.stacks import member
from edge_llm.program.formats import RUN
from edge_llm.program.pack import PANEL

_CHUNK_ELEMENTS = 2**20  # enough chunks for some cores, and little of it is Python
_SMALLEST_NORMAL = torch.finfo(torch.float32).tiny


class StreamedLinear(nn.Module):
    """A linear layer that holds no weight; an ``adaptor``, a module, adds its term. The input of
    integer formats is rounded as torchao rounds it: int8 with a scale and a zero point a token; or
    with a scale for each group of columns."""

    def __init__(
        self,
        opened: Opened,
        name: str,
        bias: torch.Tensor | None,
        each: Each,
        adaptor: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.adaptor = adaptor
        self._opened, self._name = opened, name
        self._bias, self._each = bias, each

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, K) -> (rows, N)."""
        numbers = self._opened(self._name)
        n, k = numbers.shape
        beside = None if self.adaptor is None else self.adaptor(x)
        if numbers.activations == "token":
            x = rounded_activations(x)
        elif numbers.activations == "group":
            x = rounded_by_group(x)
        out = torch.empty(len(x), n)

        def multiply(rows: slice) -> None:
            out[:, rows] = functional.linear(x, torch.from_numpy(numbers.rows(rows)))

        self._each(multiply, row_chunks(n, k, multiple=PANEL, elements=_CHUNK_ELEMENTS))
        out = out if self._bias is None else out + self._bias
        return out if beside is None else out + beside


def rounded_by_group(x: torch.Tensor) -> torch.Tensor:
    """Return each row as the integers with a scale for each RUN columns stand for."""
    columns = x.shape[1]
    groups = functional.pad(x, (0, -columns % RUN)).reshape(len(x), -(-columns // RUN), RUN)
    scales = (groups.abs().amax(dim=2, keepdim=True) / 127).clamp(min=_SMALLEST_NORMAL)
    rounded: torch.Tensor = torch.round(groups * (1 / scales)) * scales
    return rounded.flatten(1)[:, :columns]


class StreamedEmbedding(nn.Module):
    """An embedding that reads the rows it is asked for."""

    def __init__(self, opened: Opened, name: str) -> None:
        super().__init__()
        self._opened, self._name = opened, name

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(T,) -> (T, dim) float32."""
        return torch.from_numpy(self._opened(self._name).rows(tokens.numpy()))


class StreamedExperts(nn.Module):
    """Experts that read their matrices as tokens come to them."""

    def __init__(self, opened: Opened, path: str, experts: Experts, each: Each) -> None:
        super().__init__()
        self._opened, self._each, self._path = opened, each, path
        self._names = experts.names
        self._gated = partial(
            gated,
            activation=experts.activation,
            alpha=experts.alpha,
            limit=experts.limit,
        )
        for name in self._names:  # filled as every other parameter that is no matrix
            self.register_parameter(f"{name}_bias", getattr(experts, f"{name}_bias"))

    def forward(self, x: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """x: (T, D), shares: (T, E). Returns (T, D)."""
        out = torch.zeros_like(x)
        for expert in range(shares.shape[1]):
            tokens = shares[:, expert].nonzero().squeeze(1)
            if not len(tokens):
                continue
            gate, up, down = (self._linear(name, expert) for name in self._names)
            made = down(self._gated(gate(x[tokens]), up(x[tokens])))
            out[tokens] += shares[tokens, expert, None] * made
        return out

    def _linear(self, name: str, expert: int) -> StreamedLinear:
        biases: torch.Tensor | None = getattr(self, f"{name}_bias")
        bias = None if biases is None else biases[expert]
        return StreamedLinear(
            self._opened, member(f"{self._path}.{name}", expert), bias, self._each
        )


def streamed_model(
    config: DecoderConfig,
    opened: Opened,
    vector: Callable[[str], NDArray[np.float32]],
    *,
    context: int,
    slots: int,
    tokens: int,
    kv_dtype: torch.dtype,
    each: Each,
) -> nn.Module:
    """Return an eager model that reads its weights as it goes.

    ``opened`` gives the numbers of each matrix, ``vector`` those of the other parameters.
    ``context`` is the program's (it fixes the rotary tables), ``slots`` and ``tokens`` the
    sequences and positions to make room for. ``each`` does work on chunks (threads.py).
    """
    model = build_model(config, context=tokens, kv_dtype=kv_dtype, slots=slots)
    for path, module in list(model.named_modules()):
        parent, _, attribute = path.rpartition(".")
        weight = f"{path}.weight"
        if isinstance(module, nn.Linear):
            bias = None
            if module.bias is not None:
                bias = torch.from_numpy(vector(f"{path}.bias"))
            adaptor = module.adaptor if isinstance(module, AdaptedLinear) else None
            streamed: nn.Module = StreamedLinear(opened, weight, bias, each, adaptor)
        elif isinstance(module, nn.Embedding):
            streamed = StreamedEmbedding(opened, weight)
        elif isinstance(module, Experts):
            streamed = StreamedExperts(opened, path, module, each)
        else:
            continue
        model.get_submodule(parent).register_module(attribute, streamed)
    for path, parameter in list(model.named_parameters()):
        parent, _, attribute = path.rpartition(".")
        values = torch.from_numpy(vector(path)).to(parameter.dtype)
        filled = nn.Parameter(values, requires_grad=False)
        model.get_submodule(parent).register_parameter(attribute, filled)
    _fill_buffers(model, constants(config, context))
    return model.eval()


def _fill_buffers(model: nn.Module, tables: Mapping[str, NDArray[np.float32]]) -> None:
    """Replace the buffers by ``tables``, and by empty caches."""
    for path, buffer in list(model.named_buffers()):
        parent, _, attribute = path.rpartition(".")
        if path in tables:
            value = torch.from_numpy(tables[path])
        else:
            value = torch.zeros(buffer.shape, dtype=buffer.dtype)
        model.get_submodule(parent).register_buffer(attribute, value, persistent=False)
