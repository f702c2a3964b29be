"""Pass fold: quantize / dequantize around a linear or embedding becomes a format.

linear(dequantize(quantize(x)), dequantize(q, scale, zero))  ->  linear(x, w)     w: i8, i4gG
embedding(dequantize(q, scale, zero), ids)                   ->  embedding(w, ids)

The formats with minima, which torchao has no operators for, are ``linear(x, stored_as(w, name))``
and ``embedding(stored_as(w, name), ids)``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

import edge_llm.export.verification.eager  # noqa: F401  # registers stored_as
from edge_llm.errors import ExportError
from edge_llm.export.weights.scales import INT4_RANGE
from edge_llm.program.formats import WEIGHT_FORMATS, WeightFormat

_ATEN = torch.ops.aten
_DEQUANTIZE = torch.ops.torchao.dequantize_affine.default
_STORED_AS = torch.ops.edge.stored_as.default
_INT8_FULL = (-128, 127)  # torchao's range; ours stays within
_ROW_OPERANDS = {_ATEN.linear.default: 1, _ATEN.embedding.default: 0}  # where the weight is


def fold(exported: ExportedProgram, formats: Mapping[str, WeightFormat]) -> None:
    """Rewrite the graph of ``exported`` in place so that every quantized weight is used directly,
    checked against ``formats`` (by parameter name).

    Raises:
        ExportError: a quantization in the graph that is not what the recipe asked for.
    """
    graph = exported.graph
    parameters = exported.graph_signature.inputs_to_parameters
    for node in list(graph.nodes):
        where = _ROW_OPERANDS.get(node.target)
        read = None if where is None else _READERS.get(node.args[where].target)
        if where is None or read is None:
            continue
        placeholder, found = read(node.args[where])
        name = parameters[placeholder.name]
        if formats[name] != found:
            raise ExportError(
                f"{name} was traced as {found.name}, the recipe says {formats[name].name}"
            )
        marked = node.args[where].target == _STORED_AS
        node.update_arg(where, placeholder)
        if node.target == _ATEN.linear.default and not marked:
            node.update_arg(0, _unquantized_input(node, name))
    graph.eliminate_dead_code()
    for node in graph.nodes:
        if "torchao" in str(node.target) or node.target == _STORED_AS:
            raise ExportError(f"{node.name}: {node.target} is around no linear or embedding")


def _torchao_format(dequantize: Node) -> tuple[Node, WeightFormat]:
    """Return the placeholder behind a dequantized weight, and the format of its arguments."""
    inner, shape, _, _, _, low, high = dequantize.args
    assert isinstance(inner, Node)
    assert isinstance(shape, list | tuple)
    block: list[Any] = list(shape)
    placeholder = inner.args[0]  # of access_subclass_inner_tensor(parameter, "qdata")
    assert isinstance(placeholder, Node)
    k = placeholder.meta["val"].shape[1]
    if (low, high) == INT4_RANGE:
        return placeholder, WeightFormat("i4", block[1], "f16")
    if (low, high) == _INT8_FULL and block[1] == k:
        return placeholder, WEIGHT_FORMATS["i8"]
    raise ExportError(
        f"{placeholder.name}: no format for integers in [{low}, {high}] with blocks of {block}"
    )


def _stored_format(stored_as: Node) -> tuple[Node, WeightFormat]:
    """Return the placeholder of a weight that is marked with its format, and that."""
    placeholder, name = stored_as.args
    assert isinstance(placeholder, Node)
    return placeholder, WEIGHT_FORMATS[str(name)]


_READERS: Mapping[Any, Callable[[Node], tuple[Node, WeightFormat]]] = {
    _DEQUANTIZE: _torchao_format,
    _STORED_AS: _stored_format,
}


def _unquantized_input(linear: Node, name: str) -> Node:
    """x of linear(dequantize(quantize(x))), where the rounding is the one integer kernels do."""
    dequantize = linear.args[0]
    assert isinstance(dequantize, Node)
    quantize: Any = dequantize.args[0] if dequantize.args else None
    x: Any = quantize.args[0] if isinstance(quantize, Node) and quantize.args else None
    if (
        dequantize.target != _DEQUANTIZE
        or quantize.target != torch.ops.torchao.quantize_affine.default
        or quantize.args[1:] != dequantize.args[1:]
        or not _per_token(quantize, x)
    ):
        raise ExportError(f"{name}: its input is not rounded to int8 per token")
    assert isinstance(x, Node)
    return x


def _per_token(quantize: Node, x: Node) -> bool:
    _, block, scale, zero, *kind = quantize.args
    if not isinstance(scale, Node) or not isinstance(zero, Node):
        return False
    chosen = scale.args[0]
    return (
        (scale.target, zero.target) == (operator.getitem, operator.getitem)
        and isinstance(chosen, Node)
        and zero.args[0] is chosen
        and chosen.target == torch.ops.torchao.choose_qparams_affine.default
        and chosen.args[0] is x
        and chosen.args[1] == "ASYMMETRIC"
        and chosen.args[2] == block
        and tuple(kind) == (torch.int8, *_INT8_FULL)
    )
