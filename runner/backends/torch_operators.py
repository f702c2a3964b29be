"""The operators of the PyTorch backend that keep no state: what each makes of its inputs.

Written to be read against the operator table. Inputs and outputs are (rows, width) float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edge_llm.program.formats import RUN, Activations
from edge_llm.program.hadamard import order_of, paley_matrix
from edge_llm.program.ops import ACTIVATIONS, SCORINGS
from edge_llm.program.plan import Instruction, Plan

_BLOCK_ROWS = 8192  # weight rows that are dequantized at a time
_SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight [N, K]: float ``values`` as stored, or int8 with float32 ``scales`` [N, groups].
    Formats with minima are kept dequantized."""

    values: Tensor
    scales: Tensor | None = None
    rounding: Activations | None = None  # how activations are rounded to int8 for it, if they are

    def rows(self, index: Tensor | slice) -> Tensor:
        """Return some rows, dequantized: (n, K) float32."""
        values = self.values[index].float()
        if self.scales is None:
            return values
        scales = self.scales[index]
        groups = values.reshape(values.shape[0], scales.shape[1], -1)
        return (groups * scales[:, :, None]).reshape(values.shape)


Weights = list["Matrix | None"]


def _embedding(plan: Plan, op: Instruction, inputs: list[Tensor], weights: Weights) -> list[Tensor]:
    return [present(weights[0]).rows(inputs[0].long())]


def _linear(plan: Plan, op: Instruction, inputs: list[Tensor], weights: Weights) -> list[Tensor]:
    matrix, bias = present(weights[0]), weights[1]
    x = _rounded(inputs[0], matrix)
    blocks = [
        x @ matrix.rows(slice(start, start + _BLOCK_ROWS)).T
        for start in range(0, matrix.values.shape[0], _BLOCK_ROWS)
    ]
    y = torch.cat(blocks, dim=1)
    return [y if bias is None else y + bias.values]


def _route(plan: Plan, op: Instruction, inputs: list[Tensor], weights: Weights) -> list[Tensor]:
    (logits,), (bias, factors) = inputs, weights
    scoring = SCORINGS[int(op.attributes["scoring"])]
    scores = torch.sigmoid(logits) if scoring == "sigmoid" else torch.softmax(logits, dim=1)
    keys = logits if bias is None else scores + bias.values
    order = torch.sort(keys, dim=1, descending=True, stable=True).indices
    index = order[:, : int(op.attributes["chosen"])]
    if scoring == "softmax of the chosen":
        shares = torch.softmax(logits.gather(1, index), dim=1)
    elif scoring == "softmax of those near":
        shares = _near_shares(logits, index, float(op.attributes["threshold"]))
    else:
        shares = scores.gather(1, index)
    if op.attributes["normalize"]:
        shares = shares / (shares.sum(dim=1, keepdim=True) + float(op.attributes["eps"]))
    shares = shares * float(op.attributes["scale"])
    if factors is not None:
        shares = shares * factors.values[index]
    return [torch.zeros_like(logits).scatter(1, index, shares)]


def _near_shares(logits: Tensor, index: Tensor, threshold: float) -> Tensor:
    """Return the share of each chosen expert in a softmax over those near it that are left."""
    left, shares = logits.clone(), []
    for place in range(index.shape[1]):
        chosen = index[:, place : place + 1]
        own = logits.gather(1, chosen)
        far = (own - left) / torch.maximum(left.abs(), own) > threshold
        powers = torch.exp(left.masked_fill(far, -torch.inf) - own)
        shares.append(1.0 / powers.sum(dim=1, keepdim=True))
        left.scatter_(1, chosen, -torch.inf)
    return torch.cat(shares, dim=1)


def _experts(plan: Plan, op: Instruction, inputs: list[Tensor], weights: Weights) -> list[Tensor]:
    x, shares = inputs
    chosen = shares != 0.0
    chosen &= chosen.cumsum(dim=1) <= int(op.attributes["chosen"])
    y = torch.zeros_like(x)
    for expert in range(shares.shape[1]):
        rows = chosen[:, expert].nonzero().squeeze(1)
        if not len(rows):
            continue
        gate, up, down = (
            partial(_product_of, present(weights[place]), weights[place + 3], expert, len(chosen.T))
            for place in range(3)
        )
        made = down(_gated(op, gate(x[rows]), up(x[rows])))
        y[rows] += shares[rows, expert, None] * made
    return [y]


def _gated(op: Instruction, gate: Tensor, up: Tensor) -> Tensor:
    activation = ACTIVATIONS[int(op.attributes["activation"])]
    if activation == "clamped":
        alpha, limit = float(op.attributes["alpha"]), float(op.attributes["limit"])
        gate = gate.clamp(max=limit)
        return gate * torch.sigmoid(alpha * gate) * (up.clamp(-limit, limit) + 1)
    if activation == "silu":
        return functional.silu(gate) * up
    return functional.gelu(gate, approximate="tanh") * up


def _product_of(stack: Matrix, biases: Matrix | None, expert: int, count: int, x: Tensor) -> Tensor:
    """Return the product of x with one of the ``count`` matrices of a stack, plus its bias."""
    n = stack.values.shape[0] // count
    x = _rounded(x, stack)
    y = x @ stack.rows(slice(expert * n, (expert + 1) * n)).T
    return y if biases is None else y + biases.values[expert]


def _rounded(x: Tensor, matrix: Matrix) -> Tensor:
    """Return each row as the int8 that the kernels use stands for: docs/quantization.md."""
    if matrix.rounding is None:
        return x
    return _by_token(x) if matrix.rounding == "token" else _by_group(x)


def _by_group(x: Tensor) -> Tensor:
    columns = x.shape[1]
    runs = functional.pad(x, (0, -columns % RUN)).reshape(len(x), -(-columns // RUN), RUN)
    scale = (runs.abs().amax(dim=2, keepdim=True) / 127).clamp(min=_SMALLEST_NORMAL)
    return (torch.round(runs * (1 / scale)) * scale).flatten(1)[:, :columns]


def _by_token(x: Tensor) -> Tensor:
    high = x.amax(dim=1, keepdim=True).clamp(min=0)
    low = x.amin(dim=1, keepdim=True).clamp(max=0)
    scale = ((high - low) / 255).clamp(min=_SMALLEST_NORMAL)
    zero = (-128 - torch.round(low / scale)).clamp(-128, 127)
    q = (torch.round(x * (1 / scale)) + zero).clamp(-128, 127)
    return (q - zero) * scale


def _rms_norm(plan: Plan, op: Instruction, inputs: list[Tensor], weights: Weights) -> list[Tensor]:
    size = int(op.attributes["size"])
    rows, width = inputs[0].shape  # no rows in a step that ends no prompt
    runs = inputs[0].reshape(rows, width // size, size)
    weight = None if weights[0] is None else weights[0].values
    y = functional.rms_norm(runs, (size,), weight, float(op.attributes["eps"]))
    return [y.reshape(inputs[0].shape)]


def _grouped_norm(
    plan: Plan, op: Instruction, inputs: list[Tensor], weights: Weights
) -> list[Tensor]:
    size = int(op.attributes["size"])
    rows, width = inputs[0].shape
    runs = inputs[0].reshape(rows, width // size, size)
    y = functional.rms_norm(runs, (size,), None, float(op.attributes["eps"]))
    return [y.flatten(1) * present(weights[0]).values]


def _layer_norm(
    plan: Plan, op: Instruction, inputs: list[Tensor], weights: Weights
) -> list[Tensor]:
    (x,), (weight, bias) = inputs, weights
    biases = None if bias is None else bias.values
    eps = float(op.attributes["eps"])
    return [functional.layer_norm(x, (x.shape[1],), present(weight).values, biases, eps)]


def _rope(plan: Plan, op: Instruction, inputs: list[Tensor], weights: Weights) -> list[Tensor]:
    heads, head_dim = int(op.attributes["heads"]), int(op.attributes["head_dim"])
    cos, sin = (
        present(weight).values[inputs[1].long()][:, None, :]  # (T, 1, d)
        for weight in weights
    )
    half = cos.shape[-1]
    x = inputs[0].reshape(len(inputs[0]), heads, head_dim)
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    y = torch.cat((a * cos - b * sin, b * cos + a * sin, rest), dim=-1)
    return [y.reshape(inputs[0].shape)]


def _split(plan: Plan, op: Instruction, inputs: list[Tensor], weights: Weights) -> list[Tensor]:
    return list(torch.split(inputs[0], [plan.values[number].width for number in op.outputs], dim=1))


def _decay(plan: Plan, op: Instruction, inputs: list[Tensor], weights: Weights) -> list[Tensor]:
    rate, bias = (present(weight).values for weight in weights)
    return [torch.exp(-torch.exp(rate) * functional.softplus(inputs[0] + bias))]


def _time_step(plan: Plan, op: Instruction, inputs: list[Tensor], weights: Weights) -> list[Tensor]:
    low, high = (float(op.attributes[name]) for name in ("low", "high"))
    return [functional.softplus(inputs[0] + present(weights[0]).values).clamp(low, high)]


def _split_heads(
    plan: Plan, op: Instruction, inputs: list[Tensor], weights: Weights
) -> list[Tensor]:
    heads = int(op.attributes["heads"])
    sizes = [plan.values[number].width // heads for number in op.outputs]
    runs = inputs[0].reshape(len(inputs[0]), heads, sum(sizes))
    return [part.flatten(1) for part in torch.split(runs, sizes, dim=2)]


def _slice(plan: Plan, op: Instruction, inputs: list[Tensor], weights: Weights) -> list[Tensor]:
    size = int(op.attributes["size"])
    return [inputs[0].narrow(1, int(op.attributes["index"]) * size, size)]


def _rescale(plan: Plan, op: Instruction, inputs: list[Tensor], weights: Weights) -> list[Tensor]:
    return [inputs[0] * present(weights[0]).values]


def _softcap(plan: Plan, op: Instruction, inputs: list[Tensor], weights: Weights) -> list[Tensor]:
    cap = float(op.attributes["cap"])
    return [cap * torch.tanh(inputs[0] / cap)]


def _hadamard(plan: Plan, op: Instruction, inputs: list[Tensor], weights: Weights) -> list[Tensor]:
    rows, size = inputs[0].shape
    order = order_of(size)
    y = inputs[0].reshape(rows, order, size // order)
    if order > 1:
        y = torch.from_numpy(paley_matrix()) @ y
    apart = 1
    while apart < size // order:
        a, b = y.reshape(rows, size // (2 * apart), 2, apart).unbind(dim=2)
        y = torch.stack((a + b, a - b), dim=2)
        apart *= 2
    return [y.reshape(rows, size) * size**-0.5]


def _adapter_gather(
    op: Instruction, inputs: list[Tensor], stack: Matrix, adapters: list[int]
) -> Tensor:
    tokens, y = inputs[0].tolist(), torch.zeros(len(inputs[0]), int(op.attributes["rank"]))
    y = y.to(inputs[0].device)
    for row, (token, adapter) in enumerate(zip(tokens, adapters, strict=True)):
        if adapter >= 0:
            y[row] = stack.values[adapter * int(op.attributes["height"]) + token].float()
    return y


def _adapter_down(
    op: Instruction, inputs: list[Tensor], stack: Matrix, adapters: list[int]
) -> Tensor:
    rank = int(op.attributes["rank"])
    y = inputs[0].new_zeros(len(inputs[0]), rank)
    for row, adapter in enumerate(adapters):
        if adapter >= 0:
            y[row] = stack.rows(slice(adapter * rank, (adapter + 1) * rank)) @ inputs[0][row]
    return y


def _adapter_up(
    op: Instruction, inputs: list[Tensor], stack: Matrix, adapters: list[int]
) -> Tensor:
    y, height = inputs[0].clone(), int(op.attributes["height"])
    for row, adapter in enumerate(adapters):
        if adapter >= 0:
            begin = adapter * height
            y[row] += stack.rows(slice(begin, begin + y.shape[1])) @ inputs[1][row]
    return y


# Those whose weights are the adapter's of each row: the last argument, -1 for none.
ADAPTER_OPERATORS: Mapping[
    str, Callable[[Instruction, list[Tensor], Matrix, list[int]], Tensor]
] = {
    "adapter_gather": _adapter_gather,
    "adapter_down": _adapter_down,
    "adapter_up": _adapter_up,
}

_Operator = Callable[[Plan, Instruction, list[Tensor], Weights], list[Tensor]]

OPERATORS: Mapping[str, _Operator] = {
    "embedding": _embedding,
    "linear": _linear,
    "rms_norm": _rms_norm,
    "grouped_norm": _grouped_norm,
    "layer_norm": _layer_norm,
    "hadamard": _hadamard,
    "rope": _rope,
    "silu": lambda plan, op, inputs, weights: [functional.silu(inputs[0])],
    "sigmoid": lambda plan, op, inputs, weights: [torch.sigmoid(inputs[0])],
    "gelu": lambda plan, op, inputs, weights: [functional.gelu(inputs[0], approximate="tanh")],
    "mul": lambda plan, op, inputs, weights: [inputs[0] * inputs[1]],
    "scale_rows": lambda plan, op, inputs, weights: [inputs[0] * inputs[1]],
    "add": lambda plan, op, inputs, weights: [inputs[0] + inputs[1]],
    "scale": lambda plan, op, inputs, weights: [inputs[0] * float(op.attributes["factor"])],
    "split": _split,
    "concat": lambda plan, op, inputs, weights: [torch.cat(inputs, dim=1)],
    "decay": _decay,
    "time_step": _time_step,
    "split_heads": _split_heads,
    "slice": _slice,
    "rescale": _rescale,
    "select_rows": lambda plan, op, inputs, weights: [inputs[0][inputs[1].long()]],
    "softcap": _softcap,
    "route": _route,
    "experts": _experts,
}


def present(weight: Matrix | None) -> Matrix:
    """Return a weight that the checks of the plan have found to be there."""
    if weight is None:
        raise AssertionError("the plan was checked: this weight is there")
    return weight
