"""Pass fold: torchao's quantize / dequantize around a linear or embedding becomes a format.

linear(dequantize(quantize(x)), dequantize(q, scale, zero))  ->  linear(x, w)     w: i8, i4gG
embedding(dequantize(q, scale, zero), ids)                   ->  embedding(w, ids)
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from edge_llm.errors import ExportError
from edge_llm.export.scales import INT4_RANGE

_ATEN = torch.ops.aten
_INT8_FULL = (-128, 127)  # torchao's range; ours stays within
_ROW_OPERANDS = {_ATEN.linear.default: 1, _ATEN.embedding.default: 0}  # where the weight is


def fold(exported: ExportedProgram, formats: Mapping[str, str]) -> None:
    """Rewrites the graph of ``exported`` in place so that every quantized weight is used directly,
    checked against ``formats`` (by parameter name).

    Raises:
        ExportError: a quantization in the graph that is not what the recipe asked for.
    """
    graph = exported.graph
    parameters = exported.graph_signature.inputs_to_parameters
    for node in list(graph.nodes):
        where = _ROW_OPERANDS.get(node.target)
        if where is None or node.args[where].target != torch.ops.torchao.dequantize_affine.default:
            continue
        placeholder, found = _weight_format(node.args[where])
        name = parameters[placeholder.name]
        if formats[name] != found:
            raise ExportError(f"{name} was traced as {found}, the recipe says {formats[name]}")
        node.update_arg(where, placeholder)
        if node.target == _ATEN.linear.default:
            node.update_arg(0, _unquantized_input(node, name))
    graph.eliminate_dead_code()
    for node in graph.nodes:
        if "torchao" in str(node.target):
            raise ExportError(f"{node.name}: {node.target} is around no linear or embedding")


def _weight_format(dequantize: Node) -> tuple[Node, str]:
    """The placeholder behind a dequantized weight, and the format its arguments describe."""
    inner, block, _, _, _, low, high = dequantize.args
    assert isinstance(inner, Node)
    assert isinstance(block, list | tuple)
    placeholder = inner.args[0]  # of access_subclass_inner_tensor(parameter, "qdata")
    assert isinstance(placeholder, Node)
    k = placeholder.meta["val"].shape[1]
    if (low, high) == INT4_RANGE:
        return placeholder, f"i4g{block[1]}"
    if (low, high) == _INT8_FULL and block[1] == k:
        return placeholder, "i8"
    raise ExportError(
        f"{placeholder.name}: no format for integers in [{low}, {high}] with blocks of {block}"
    )


def _unquantized_input(linear: Node, name: str) -> Node:
    """x of linear(dequantize(quantize(x))), where the rounding is the one integer kernels do."""
    dequantize = linear.args[0]
    assert isinstance(dequantize, Node)
    quantize: Any = dequantize.args[0] if dequantize.args else None
    x: Any = quantize.args[0] if isinstance(quantize, Node) and quantize.args else None
    if (
        dequantize.target != torch.ops.torchao.dequantize_affine.default
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
