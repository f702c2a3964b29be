"""Stage lower: the ATen graph -> a plan over the closed operator set.

Every activation becomes a matrix [T, width] or [R, width]; views only regroup the columns of a
row and vanish. One rule per graph operator; a node without a rule ends the export by name.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from math import prod
from types import MappingProxyType
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from edge_llm.errors import UnsupportedOperatorError
from edge_llm.export.lowering.source import model_source
from edge_llm.llm.models import delta, experts, ops, quantized_llama, state_space
from edge_llm.program.builder import PlanBuilder
from edge_llm.program.formats import RAW_F32, WEIGHT_FORMATS
from edge_llm.program.ops import ACTIVATIONS, SCORINGS
from edge_llm.program.plan import (
    HIDDEN,
    INPUT_NAMES,
    Attribute,
    Plan,
    Rows,
    Signature,
    State,
    Weight,
)

_ATEN = torch.ops.aten
_REGISTERED = (
    ops,
    experts,
    delta,
    state_space,
    quantized_llama,
)  # whose imports define torch.ops.edge


def lower(
    exported: ExportedProgram,
    *,
    context: int,
    operators: frozenset[str],
    draft: ExportedProgram | None = None,
) -> Plan:
    """Return the plan of a graph, its matrices in float32: which formats they have is decided
    later. ``operators`` are those that the backend executes, ``draft`` is the graph of the model's
    draft method.

    Raises:
        UnsupportedOperatorError: a node that the plan cannot express, with its place in the model
            and the list of what is supported.
    """
    builder = PlanBuilder()
    vocab = _Lowering(exported, operators, builder).run("causal_lm")
    if draft is not None:
        _Lowering(draft, operators, builder).run("draft")
    return builder.finish(context=context, vocab=vocab)


class _Lowering:
    """One run over the graph: what each node became."""

    def __init__(
        self, exported: ExportedProgram, operators: frozenset[str], builder: PlanBuilder
    ) -> None:
        self._exported = exported
        self._operators = operators
        self._builder = builder
        self._values: dict[Node, list[int]] = {}  # several for split
        signature = exported.graph_signature
        self._constants = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self._rows: dict[str, Rows] = {}  # symbol of a first dimension -> T or R

    def run(self, signature: Signature) -> int:
        """Add the graph as a method; return the width of its first output."""
        outputs: tuple[Node, ...] = ()
        for node in self._exported.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node)
            elif node.op == "output":
                outputs = node.args[0]
            elif node.target in _RULES:
                _RULES[node.target](self, node)
            elif not isinstance(node.meta.get("val"), int | torch.SymInt):  # sizes for views
                raise self._unsupported(node)
        self._builder.close(signature, *map(self._value, outputs))
        return self._width(outputs[0])

    def _placeholder(self, node: Node) -> None:
        if node.name in INPUT_NAMES:
            number = INPUT_NAMES.index(node.name)
            self._values[node] = [number]
            self._rows[str(node.meta["val"].shape[0])] = "R" if node.name == "rows" else "T"
        elif node.name == "hidden":
            self._builder.begin(self._width(node))
            self._values[node] = [HIDDEN]

    # --- rules -----------------------------------------------------------------------------------

    def embedding(self, node: Node) -> None:
        table, tokens = self._only(node, "table", "tokens")
        self._emit(node, "embedding", [tokens], weights=[self._matrix(table)])

    def linear(self, node: Node) -> None:
        x, weight, bias = (*_arguments(node), None)[:3]
        matrix = self._matrix(weight)  # weights are numbered in the order of operands
        biases = -1 if bias is None else self._vector(bias)
        self._emit(node, "linear", [x], weights=[matrix, biases])

    def rms_norm(self, node: Node) -> None:
        x, shape, weight, eps = (*_arguments(node), None, None)[:4]
        if len(shape) != 1:
            raise self._unsupported(node, "over the last dimension")
        (size,) = shape
        default = torch.finfo(torch.float32).eps
        self._emit(
            node,
            "rms_norm",
            [x],
            weights=[] if weight is None else [self._vector(weight)],
            attributes={
                "size": size,
                "eps": default if eps is None else float(eps),
            },
        )

    def layer_norm(self, node: Node) -> None:
        x, shape, weight, bias, eps = (*_arguments(node), None, None, 1e-5)[:5]
        if weight is None or len(shape) != 1 or x.meta["val"].dim() != 2:
            raise self._unsupported(node, "with a weight over whole rows")
        vectors = [self._vector(weight), -1 if bias is None else self._vector(bias)]
        self._emit(node, "layer_norm", [x], weights=vectors, attributes={"eps": float(eps)})

    def rope(self, node: Node) -> None:
        x, positions, cos, sin = self._only(node, "x", "positions", "cos", "sin")
        _, heads, head_dim = x.meta["val"].shape
        self._emit(
            node,
            "rope",
            [x, positions],
            weights=[self._vector(cos), self._vector(sin)],
            attributes={"heads": heads, "head_dim": head_dim},
        )

    def attention(self, node: Node) -> None:
        q, k, v, k_cache, _, positions, sequences, sinks, *settings = _arguments(node)
        scale, window, softcap, bidirectional = settings
        _, heads, head_dim = q.meta["val"].shape
        kv_heads = k.meta["val"].shape[1]
        layer = self._constants[k_cache.name].rpartition(".")[0]
        state = self._builder.state(State.kv(layer, kv_heads, head_dim, head_dim, int(window)))
        self._emit(
            node,
            "attention",
            [q, k, v, positions, sequences],
            weights=[] if sinks is None else [self._vector(sinks)],
            state=state,
            attributes={
                "heads": heads,
                "kv_heads": kv_heads,
                "head_dim": head_dim,
                "scale": float(scale),
                "softcap": float(softcap),
                "bidirectional": int(bidirectional),
            },
        )

    def attend(self, node: Node) -> None:
        q, k_cache, _, positions, sequences, scale, window, softcap = _arguments(node)
        _, heads, head_dim = q.meta["val"].shape
        kv_heads = k_cache.meta["val"].shape[2]
        layer = self._constants[k_cache.name].rpartition(".")[0]
        self._emit(
            node,
            "attend",
            [q, positions, sequences],
            state=self._builder.state(State.kv(layer, kv_heads, head_dim, head_dim, int(window))),
            attributes={
                "heads": heads,
                "kv_heads": kv_heads,
                "head_dim": head_dim,
                "scale": float(scale),
                "softcap": float(softcap),
            },
        )

    def causal_conv(self, node: Node) -> None:
        x, weight, bias, cache, positions, sequences = _arguments(node)
        width, taps = weight.meta["val"].shape
        name = self._constants[cache.name].rpartition(".")[0]
        self._emit(
            node,
            "causal_conv",
            [x, positions, sequences],
            weights=[self._vector(weight), -1 if bias is None else self._vector(bias)],
            state=self._builder.state(State.rows(name, width, taps)),
            attributes={"taps": taps},
        )

    def previous(self, node: Node) -> None:
        x, cache, positions, sequences = _arguments(node)
        name = self._constants[cache.name].rpartition(".")[0]
        state = self._builder.state(State.rows(name, self._width(x), 2))
        self._emit(node, "previous", [x, positions, sequences], state=state)

    def concat(self, node: Node) -> None:
        parts, dim = (*_arguments(node), 0)[:2]
        if len(parts) != 2 or dim not in (-1, 1) or self._width(parts[0]) != self._width(parts[1]):
            raise self._unsupported(node, "only of the columns of two matrices of one width")
        self._emit(node, "concat", list(parts))

    def decay(self, node: Node) -> None:
        x, rate, bias = self._only(node, "x", "rate", "bias")
        self._emit(node, "decay", [x], weights=[self._vector(rate), self._vector(bias)])

    def gated_delta(self, node: Node) -> None:
        q, k, v, decay, strength, kept, positions, sequences, eps, scale = _arguments(node)
        _, heads, k_dim, v_dim = kept.meta["val"].shape
        key_heads = k.meta["val"].shape[1]
        name = self._constants[kept.name].rpartition(".")[0]
        self._emit(
            node,
            "gated_delta",
            [q, k, v, decay, strength, positions, sequences],
            state=self._builder.state(State.fold(name, key_heads, heads, k_dim, v_dim)),
            attributes={
                "key_heads": key_heads,
                "heads": heads,
                "k_dim": k_dim,
                "v_dim": v_dim,
                "eps": float(eps),
                "scale": float(scale),
            },
        )

    def grouped_norm(self, node: Node) -> None:
        x, weight, size, eps = _arguments(node)
        attributes = {"size": size, "eps": float(eps)}
        self._emit(node, "grouped_norm", [x], weights=[self._vector(weight)], attributes=attributes)

    def time_step(self, node: Node) -> None:
        x, bias, low, high = _arguments(node)
        limits = {"low": float(low), "high": float(high)}
        self._emit(node, "time_step", [x], weights=[self._vector(bias)], attributes=limits)

    def state_space(self, node: Node) -> None:
        q, k, v, step, rate, skip, kept, positions, sequences = _arguments(node)
        _, heads, k_dim, v_dim = kept.meta["val"].shape
        key_heads = k.meta["val"].shape[1]
        name = self._constants[kept.name].rpartition(".")[0]
        self._emit(
            node,
            "state_space",
            [q, k, v, step, positions, sequences],
            weights=[self._vector(rate), self._vector(skip)],
            state=self._builder.state(State.fold(name, key_heads, heads, k_dim, v_dim)),
            attributes={"key_heads": key_heads, "heads": heads, "k_dim": k_dim, "v_dim": v_dim},
        )

    def softcap(self, node: Node) -> None:
        x, cap = self._only(node, "x", "cap")
        self._emit(node, "softcap", [x], attributes={"cap": float(cap)})

    def hadamard(self, node: Node) -> None:
        self._emit(node, "hadamard", self._only(node, "x"))

    def route(self, node: Node) -> None:
        given = _arguments(node)
        defaults: list[Any] = [None, 0.0]
        given += defaults[len(given) - 7 :]
        logits, bias, chosen, scoring, normalize, eps, scale, factors, threshold = given
        self._emit(
            node,
            "route",
            [logits],
            weights=[
                -1 if bias is None else self._vector(bias),
                *([] if factors is None else [self._vector(factors)]),
            ],
            attributes={
                "chosen": chosen,
                "scoring": SCORINGS.index(scoring),
                "normalize": int(normalize),
                "eps": float(eps),
                "scale": float(scale),
                "threshold": float(threshold),
            },
        )

    def experts(self, node: Node) -> None:
        x, shares, *operands, chosen, activation, alpha, limit = _arguments(node)
        stacks, biases = operands[:3], operands[3:]
        count, inner, _ = stacks[0].meta["val"].shape
        self._emit(
            node,
            "experts",
            [x, shares],
            weights=[
                *map(self._matrix, stacks),
                *(-1 if bias is None else self._vector(bias) for bias in biases),
            ],
            attributes={
                "experts": count,
                "inner": inner,
                "chosen": chosen,
                "activation": ACTIVATIONS.index(activation),
                "alpha": float(alpha),
                "limit": float(limit),
            },
        )

    def silu(self, node: Node) -> None:
        self._emit(node, "silu", self._only(node, "x"))

    def sigmoid(self, node: Node) -> None:
        self._emit(node, "sigmoid", self._only(node, "x"))

    def gelu(self, node: Node) -> None:
        if node.kwargs.get("approximate") != "tanh":
            raise self._unsupported(node, "only with the tanh approximation")
        self._emit(node, "gelu", _arguments(node))

    def mul(self, node: Node) -> None:
        x, y = self._only(node, "x", "y")
        if isinstance(y, int | float):
            self._emit(node, "scale", [x], attributes={"factor": float(y)})
        elif y.name in self._constants and tuple(y.meta["val"].shape) == (1,):
            self._emit(node, "rescale", [x], weights=[self._vector(y)])
        elif self._width(x) != self._width(y) and 1 in (self._width(x), self._width(y)):
            wide, factor = (y, x) if self._width(x) == 1 else (x, y)
            self._emit(node, "scale_rows", [wide, factor])
        else:
            self._elementwise(node, "mul", x, y)

    def add(self, node: Node) -> None:
        x, y = self._only(node, "x", "y")
        self._elementwise(node, "add", x, y)

    def split(self, node: Node) -> None:
        x, sizes, dim = self._only(node, "x", "sizes", "dim")
        rank = x.meta["val"].dim()
        if dim not in (-1, rank - 1) or rank not in (2, 3):
            raise self._unsupported(node, "only of the columns of a matrix, or of its heads")
        heads = 1 if rank == 2 else int(x.meta["val"].shape[1])
        self._values[node] = self._builder.emit(
            "split" if rank == 2 else "split_heads",
            [self._value(x)],
            [heads * size for size in sizes],
            rows=self._row_kind(x),
            attributes={} if rank == 2 else {"heads": heads},
            source=model_source(node),
        )

    def slice(self, node: Node) -> None:
        x, dim, start, width = self._only(node, "x", "dim", "start", "length")
        total = self._width(x)
        if dim != 1 or x.meta["val"].dim() != 2 or total % width or start % width:
            raise self._unsupported(node, "only of one of equal runs of columns")
        self._emit(
            node,
            "slice",
            [x],
            attributes={"count": total // width, "size": width, "index": start // width},
        )

    def getitem(self, node: Node) -> None:
        parts, index = node.args
        if not isinstance(parts, Node) or not isinstance(index, int) or parts not in self._values:
            raise self._unsupported(node)
        self._values[node] = [self._values[parts][index]]

    def select_rows(self, node: Node) -> None:
        x, indices = self._only(node, "x", "indices")
        (rows,) = list(indices)
        self._emit(node, "select_rows", [x, rows])

    def index_select(self, node: Node) -> None:
        x, dim, rows = self._only(node, "x", "dim", "rows")
        if dim != 0:
            raise self._unsupported(node, "only of the first dimension")
        if x.name in INPUT_NAMES:  # an operator over R rows takes the wanted ones itself
            self._values[node] = [self._value(x)]
        else:
            self._emit(node, "select_rows", [x, rows])

    def view(self, node: Node) -> None:
        x = _arguments(node)[0]
        if self._row_kind(x) != self._row_kind(node) or self._width(x) != self._width(node):
            raise self._unsupported(node, "only regrouping the columns of each row")
        self._values[node] = [self._value(x)]

    # --- operands --------------------------------------------------------------------------------

    def _emit(
        self,
        node: Node,
        op: str,
        inputs: list[Any],
        *,
        weights: list[int] | None = None,
        state: int = -1,
        attributes: Mapping[str, Attribute] | None = None,
    ) -> None:
        if op not in self._operators:
            raise self._unsupported(node)
        self._values[node] = self._builder.emit(
            op,
            [self._value(value) for value in inputs],
            [self._width(node)],
            rows=self._row_kind(node),
            weights=weights or (),
            state=state,
            attributes=attributes,
            source=model_source(node),
        )

    def _elementwise(self, node: Node, op: str, x: Any, y: Any) -> None:
        same = isinstance(y, Node) and x.meta["val"].shape == y.meta["val"].shape
        if not same or node.kwargs:
            raise self._unsupported(node, "only of two values of the same shape")
        self._emit(node, op, [x, y])

    def _matrix(self, node: Node) -> int:
        name = self._constants[node.name]
        shape = tuple(int(size) for size in node.meta["val"].shape)
        return self._builder.weight(Weight(name, name, WEIGHT_FORMATS["f32"], shape))

    def _vector(self, node: Any) -> int:
        name = self._constants[node.name]
        shape = tuple(int(size) for size in node.meta["val"].shape)
        return self._builder.weight(Weight(name, name, RAW_F32, shape))

    def _value(self, node: Any) -> int:
        if not isinstance(node, Node) or len(self._values.get(node, ())) != 1:
            raise UnsupportedOperatorError(f"{node} is used as a value, but the plan has none")
        return self._values[node][0]

    def _width(self, node: Node) -> int:
        return prod(int(size) for size in node.meta["val"].shape[1:])

    def _row_kind(self, node: Node) -> Rows:
        symbol = str(node.meta["val"].shape[0])
        if symbol not in self._rows:
            raise self._unsupported(node, "only with T or R as the first dimension")
        return self._rows[symbol]

    def _only(self, node: Node, *names: str) -> list[Any]:
        """The positional arguments, exactly these."""
        if len(node.args) != len(names):
            raise self._unsupported(node, f"only with the arguments {', '.join(names)}")
        return _arguments(node)

    def _unsupported(self, node: Node, limit: str = "") -> UnsupportedOperatorError:
        what = f"{node.target} ({node.name})" + (f" is supported {limit}" if limit else "")
        place = model_source(node) or "an unknown line"
        return UnsupportedOperatorError(
            f"{what if limit else 'no operator for ' + what}, at {place}",
            hint="supported: " + ", ".join(sorted(str(target) for target in _RULES)),
        )


def _arguments(node: Node) -> list[Any]:
    return list(node.args)


_RULES: Mapping[Any, Callable[[_Lowering, Node], None]] = MappingProxyType(
    {
        _ATEN.embedding.default: _Lowering.embedding,
        _ATEN.linear.default: _Lowering.linear,
        _ATEN.rms_norm.default: _Lowering.rms_norm,
        _ATEN.layer_norm.default: _Lowering.layer_norm,
        torch.ops.edge.rope.default: _Lowering.rope,
        torch.ops.edge.attention.default: _Lowering.attention,
        torch.ops.edge.attend.default: _Lowering.attend,
        torch.ops.edge.causal_conv.default: _Lowering.causal_conv,
        torch.ops.edge.previous.default: _Lowering.previous,
        _ATEN.cat.default: _Lowering.concat,
        torch.ops.edge.decay.default: _Lowering.decay,
        torch.ops.edge.gated_delta.default: _Lowering.gated_delta,
        torch.ops.edge.time_step.default: _Lowering.time_step,
        torch.ops.edge.grouped_norm.default: _Lowering.grouped_norm,
        torch.ops.edge.state_space.default: _Lowering.state_space,
        torch.ops.edge.softcap.default: _Lowering.softcap,
        torch.ops.edge.hadamard.default: _Lowering.hadamard,
        torch.ops.edge.route.default: _Lowering.route,
        torch.ops.edge.experts.default: _Lowering.experts,
        _ATEN.silu.default: _Lowering.silu,
        _ATEN.sigmoid.default: _Lowering.sigmoid,
        _ATEN.gelu.default: _Lowering.gelu,
        _ATEN.mul.Tensor: _Lowering.mul,
        _ATEN.add.Tensor: _Lowering.add,
        _ATEN.split_with_sizes.default: _Lowering.split,
        _ATEN.narrow.default: _Lowering.slice,
        operator.getitem: _Lowering.getitem,
        _ATEN.index.Tensor: _Lowering.select_rows,
        _ATEN.index_select.default: _Lowering.index_select,
        _ATEN.view.default: _Lowering.view,
        _ATEN.reshape.default: _Lowering.view,
        _ATEN.flatten.using_ints: _Lowering.view,
    }
)
