"""The closed operator set of the plan: the one place that says what an operator is.

Read here: the checks of plans (`check.py`), the cost of a step (`cost.py`), the form of files
(`serialize.py`). Generated from here by ``make operators``: the core's enumeration, the sizes of
the ABI's arrays, the rules that the core checks plans by, and the table in docs/program-format.md.

Operators are unfused: fusion is the business of the backend that runs them. Every activation is a
float32 matrix ``[T, width]`` or ``[R, width]``; heads are folded into the width. What computes R
rows takes of the inputs ``positions`` and ``sequences`` those of the tokens that are wanted. A
weight of rank 3 is a stack of matrices, one an expert.

Shapes are patterns. The first dimension of a value is ``T``, ``R``, or ``r`` (either, the same in
the whole instruction). Other dimensions are products of numbers and names: an attribute, a size
of the state (``state.heads``) or its ``state.window``, a fact of the plan (``context``, ``vocab``),
or else a variable, which takes the first size that it meets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

AttributeKind = Literal["int", "float"]
# index: an int32 input of the method, of the same name. panel: a matrix in panels of 16 rows.
# raw: plain float32 numbers.
OperandKind = Literal["value", "index", "panel", "raw"]
Relation = Literal["==", "<=", "<", "divides"]
# small: nothing that counts. product: 2 n k operations a row, the weight once a step. gather: a row
# of each weight for each token. attention: 4 heads head_dim operations for each position that a
# token sees, whose keys and values are read. convolution: 2 operations for each number of the rows
# that a token sees, which are read. experts: of each stack the matrices of the `chosen` experts of
# each token. adapter: of each stack the matrix of one adapter. fold: 4 operations for each number
# of the state's matrices, which each block of rows of a step reads; delta: 6 of them.
CostKind = Literal[
    "small",
    "product",
    "gather",
    "attention",
    "convolution",
    "experts",
    "adapter",
    "fold",
    "delta",
]

# What a state remembers: program/plan.py.
StateKind = Literal["kv", "fold", "rows"]
STATE_KINDS: tuple[StateKind, ...] = get_args(StateKind)  # places are numbers in the native ABI

# Array sizes of an instruction in the native ABI.
MAX_INPUTS, MAX_OUTPUTS, MAX_WEIGHTS, MAX_STATES, MAX_INTS, MAX_FLOATS = 8, 4, 6, 2, 8, 4
MAX_STATE_SIZES = 4  # of a state

MAX_WIDTH = 2**22  # columns of a value
MAX_HEADS = 1024
MAX_HEAD_DIM = 512  # of attention
MAX_FOLD_DIM = 256  # of the matrices of a fold
MAX_TAPS = 64
MAX_EXPERTS = 1024
MAX_SLICES = 1024
MAX_ADAPTERS = 64
MAX_ADAPTER_RANK = 4096
# How `route` scores experts, and what `experts` activates their gates with: attributes count these.
SCORINGS = ("softmax", "softmax of the chosen", "sigmoid", "softmax of those near")
ACTIVATIONS = ("silu", "gelu", "clamped")
FOLD_ROWS = 16  # positions of a block inside which a fold is evaluated row by row
FOLD_HEADS = 4  # value heads of a fold that share a copy of their keys, at most
_MOST = 2.0**127  # of a float attribute

# The sizes of a state of each kind, in the order of the native ABI, and the most of each;
# the least is 1.
STATE_SIZES: Mapping[StateKind, Mapping[str, int]] = MappingProxyType(
    {
        "kv": {"heads": MAX_HEADS, "k_dim": MAX_HEAD_DIM, "v_dim": MAX_HEAD_DIM},
        "fold": {
            "key_heads": MAX_HEADS,
            "heads": MAX_HEADS,
            "k_dim": MAX_FOLD_DIM,
            "v_dim": MAX_FOLD_DIM,
        },
        "rows": {"width": MAX_WIDTH},
    }
)


@dataclass(frozen=True, slots=True)
class Operand:
    """An input, a weight or an output; ``dims`` are patterns. An optional weight may be absent."""

    name: str
    kind: OperandKind
    dims: tuple[str, ...] = ()
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Attribute:
    """A number of an instruction, from ``low`` to ``high``; not ``low`` itself where ``above``. A
    ``choice`` is no size, but stands for one of a few ways, and a ``place`` counts layers. Plans
    that do not say it have the ``default``, if it has one: they are older than it."""

    name: str
    kind: AttributeKind
    low: float
    high: float
    above: bool = False
    choice: bool = False
    place: bool = False
    default: int | float | None = None


@dataclass(frozen=True, slots=True)
class OpSpec:
    """One operator.

    Attributes:
        code: its number in the native ABI, and its place in the table.
        meaning: what it computes, for people.
        inputs, weights: operands in their order; the last weights, if optional, may be left out.
        output: the shape of the one output; None: one or more outputs with the rows of the first
            input, whose widths add up to its width.
        attributes: in the order of the native ABI, which numbers ints and floats apart.
        where: what else holds between sizes.
        state: the kind of state that it reads and writes, if any.
        writes: whether it writes that state; one that does not comes after one that does.
        cost: what counts of its work.
        elementwise: all operands have one shape, and each output depends on its own place alone.
        in_place: the output may take the place of the first input.
    """

    code: int
    meaning: str
    inputs: tuple[Operand, ...]
    weights: tuple[Operand, ...] = ()
    output: tuple[str, str] | None = ("r", "w")
    attributes: tuple[Attribute, ...] = ()
    where: tuple[tuple[str, Relation, str], ...] = ()
    state: StateKind | None = None
    writes: bool = True
    cost: CostKind = "small"
    elementwise: bool = False
    in_place: bool = False


def _value(name: str, rows: str, width: str) -> Operand:
    return Operand(name, "value", (rows, width))


def _index(name: str) -> Operand:
    return Operand(name, "index")


def _panel(name: str, *dims: str) -> Operand:
    return Operand(name, "panel", dims)


def _raw(name: str, *dims: str, optional: bool = False) -> Operand:
    return Operand(name, "raw", dims, optional)


def _int(name: str, low: int, high: int) -> Attribute:
    return Attribute(name, "int", low, high)


def _choice(name: str, ways: int) -> Attribute:
    return Attribute(name, "int", 0, ways - 1, choice=True)


def _positive(name: str, high: float = _MOST) -> Attribute:
    return Attribute(name, "float", 0.0, high, above=True)


def _elementwise(
    code: int, meaning: str, *names: str, attribute: Attribute | None = None
) -> OpSpec:
    return OpSpec(
        code,
        meaning,
        tuple(_value(name, "r", "w") for name in names),
        attributes=() if attribute is None else (attribute,),
        elementwise=True,
        in_place=True,
    )


_HEAD_DIM = _int("head_dim", 1, MAX_HEAD_DIM)
_ATTENTION = (
    _int("heads", 1, MAX_HEADS),
    _int("kv_heads", 1, MAX_HEADS),
    _HEAD_DIM,
    _positive("scale"),
    Attribute("softcap", "float", 0.0, _MOST),
)
_BIDIRECTIONAL = Attribute("bidirectional", "int", 0, 1, choice=True, default=0)
_HEADS_OF_STATE: tuple[tuple[str, Relation, str], ...] = (
    ("kv_heads", "==", "state.heads"),
    ("head_dim", "==", "state.k_dim"),
    ("head_dim", "==", "state.v_dim"),
    ("kv_heads", "divides", "heads"),
)

_ADAPTERS = (
    _int("adapters", 1, MAX_ADAPTERS),
    _int("rank", 16, MAX_ADAPTER_RANK),
    _int("height", 16, 2**24),  # rows of the matrix of one adapter
)
# The rows of an adapter are whole panels.
_WHOLE_PANELS: tuple[tuple[str, Relation, str], ...] = (
    ("16", "divides", "rank"),
    ("16", "divides", "height"),
)

OPS: MappingProxyType[str, OpSpec] = MappingProxyType(
    {
        "embedding": OpSpec(
            0,
            "row `tokens[t]` of the table",
            (_index("tokens"),),
            (_panel("table", "n", "w"),),
            ("T", "w"),
            where=(("vocab", "<=", "n"),),
            cost="gather",
        ),
        "linear": OpSpec(
            1,
            "`x @ weight.T + bias`; integer weights quantize each row of x to int8 first",
            (_value("x", "r", "k"),),
            (_panel("weight", "n", "k"), _raw("bias", "n", optional=True)),
            ("r", "n"),
            cost="product",
        ),
        "rms_norm": OpSpec(
            2,
            "per run of `size` columns: `x / sqrt(mean(x^2) + eps) * weight`; without a weight "
            "that factor is left out",
            (_value("x", "r", "w"),),
            (_raw("weight", "size", optional=True),),
            attributes=(_int("size", 1, MAX_WIDTH), _positive("eps", 1.0)),
            where=(("size", "divides", "w"),),
            in_place=True,
        ),
        "rope": OpSpec(
            3,
            "half-split rotation of the first 2d columns of each head by row `positions[t]`",
            (_value("x", "r", "heads*head_dim"), _index("positions")),
            (_raw("cos", "p", "d"), _raw("sin", "p", "d")),
            ("r", "heads*head_dim"),
            (_int("heads", 1, MAX_HEADS), _int("head_dim", 2, MAX_HEAD_DIM)),
            where=(("context", "<=", "p"), ("2*d", "<=", "head_dim")),
            cost="gather",
            in_place=True,
        ),
        "attention": OpSpec(
            4,
            "writes k, v at (sequence, position), then causal attention within the sequence over "
            "the last `window` positions of the state, or, bidirectional, over as many behind it "
            "too, all in one step; softcap 0: none, else scores are "
            "`cap * tanh(score / cap)`; a sink is a score more of its head, whose value is nothing",
            (
                _value("q", "T", "heads*head_dim"),
                _value("k", "T", "kv_heads*head_dim"),
                _value("v", "T", "kv_heads*head_dim"),
                _index("positions"),
                _index("sequences"),
            ),
            (_raw("sinks", "heads", optional=True),),
            output=("T", "heads*head_dim"),
            attributes=(*_ATTENTION, _BIDIRECTIONAL),
            where=_HEADS_OF_STATE,
            state="kv",
            cost="attention",
            in_place=True,
        ),
        "silu": _elementwise(5, "`x / (1 + e^-x)`", "x"),
        "gelu": _elementwise(6, "the tanh approximation", "x"),
        "mul": _elementwise(7, "`x * y`", "x", "y"),
        "add": _elementwise(8, "`x + y`", "x", "y"),
        "scale": _elementwise(
            9, "`x * factor`", "x", attribute=Attribute("factor", "float", -_MOST, _MOST)
        ),
        "split": OpSpec(
            10,
            "1 to 4 consecutive column slices, whose widths add up to that of x",
            (_value("x", "r", "w"),),
            output=None,
        ),
        "select_rows": OpSpec(
            11, "`y[r] = x[rows[r]]`", (_value("x", "T", "w"), _index("rows")), output=("R", "w")
        ),
        "softcap": _elementwise(12, "`cap * tanh(x / cap)`", "x", attribute=_positive("cap")),
        "sigmoid": _elementwise(13, "`1 / (1 + e^-x)`", "x"),
        "causal_conv": OpSpec(
            14,
            "writes x at (sequence, position), then `y[c] = bias[c] + sum of weight[c, i] * "
            "row(position - taps + 1 + i)[c]` over the sequence's own rows, i ascending; those "
            "before position 0 are left out",
            (_value("x", "T", "w"), _index("positions"), _index("sequences")),
            (_raw("weight", "w", "taps"), _raw("bias", "w", optional=True)),
            ("T", "w"),
            (_int("taps", 1, MAX_TAPS),),
            where=(("w", "==", "state.width"), ("taps", "==", "state.window")),
            state="rows",
            cost="convolution",
            in_place=True,
        ),
        "route": OpSpec(
            15,
            "the shares of `chosen` experts in each row, and 0 for the others: those with the "
            "largest `logits`, or with a bias the largest score plus bias, of equal ones the "
            "first; their scores (`scoring` 0: softmax, 1: softmax of the chosen alone, 2: "
            "sigmoid, 3: each a softmax of its own, over the logits x of those not chosen before "
            "it of which `(own - x) / max(|x|, own) > threshold` does not hold), where "
            "`normalize` is 1 divided by their sum plus eps, times scale and, with `factors`, that "
            "of the expert",
            (_value("logits", "r", "experts"),),
            (_raw("bias", "experts", optional=True), _raw("factors", "experts", optional=True)),
            ("r", "experts"),
            (
                _int("chosen", 1, MAX_EXPERTS),
                _choice("scoring", len(SCORINGS)),
                _choice("normalize", 2),
                Attribute("eps", "float", 0.0, 1.0),
                _positive("scale"),
                Attribute("threshold", "float", 0.0, _MOST),  # of the last scoring
            ),
            where=(("chosen", "<=", "experts"),),
        ),
        "experts": OpSpec(
            16,
            "`sum share * gated(x @ gate.T, x @ up.T) @ down.T`, each product as in `linear`, over "
            "the experts with a share that is not 0, at most the first `chosen`, in their order; "
            "gated(g, u) by activation 0: `silu(g) * u`, 1: `gelu(g) * u`, 2: with g at most limit "
            "and u from -limit to limit `g / (1 + e^(-alpha * g)) * (u + 1)`",
            (_value("x", "r", "w"), _value("shares", "r", "experts")),
            (
                _panel("gate", "experts", "inner", "w"),
                _panel("up", "experts", "inner", "w"),
                _panel("down", "experts", "w", "inner"),
                _raw("gate_bias", "experts", "inner", optional=True),
                _raw("up_bias", "experts", "inner", optional=True),
                _raw("down_bias", "experts", "w", optional=True),
            ),
            ("r", "w"),
            (
                _int("experts", 1, MAX_EXPERTS),
                _int("inner", 1, MAX_WIDTH),
                _int("chosen", 1, MAX_EXPERTS),
                _choice("activation", len(ACTIVATIONS)),
                Attribute("alpha", "float", 0.0, _MOST),  # of the last
                Attribute("limit", "float", 0.0, _MOST),
            ),
            where=(
                ("chosen", "<=", "experts"),
                ("16", "divides", "inner"),  # an expert's rows are whole panels
                ("16", "divides", "w"),
            ),
            cost="experts",
        ),
        "decay": OpSpec(
            17,
            "`e^(-e^rate * softplus(x + bias))`",
            (_value("x", "r", "w"),),
            (_raw("rate", "w"), _raw("bias", "w")),
            in_place=True,
        ),
        "gated_delta": OpSpec(
            18,
            "per value head a matrix S [k_dim, v_dim] of the sequence, zero before position 0: "
            "`S = decay * S`, `u = strength * (v - S.T @ k)`, `S = S + k u.T`, `y = S.T @ q`; "
            "q and k, of key head `head * key_heads / heads`, are normalized first, "
            "`x / sqrt(sum(x^2) + eps)`, and q multiplied by `scale`",
            (
                _value("q", "T", "key_heads*k_dim"),
                _value("k", "T", "key_heads*k_dim"),
                _value("v", "T", "heads*v_dim"),
                _value("decay", "T", "heads"),
                _value("strength", "T", "heads"),
                _index("positions"),
                _index("sequences"),
            ),
            output=("T", "heads*v_dim"),
            attributes=(
                _int("key_heads", 1, MAX_HEADS),
                _int("heads", 1, MAX_HEADS),
                _int("k_dim", 1, MAX_FOLD_DIM),
                _int("v_dim", 1, MAX_FOLD_DIM),
                _positive("eps", 1.0),
                _positive("scale"),
            ),
            where=(
                ("key_heads", "==", "state.key_heads"),
                ("heads", "==", "state.heads"),
                ("k_dim", "==", "state.k_dim"),
                ("v_dim", "==", "state.v_dim"),
                ("key_heads", "divides", "heads"),
                ("2", "==", "state.window"),
            ),
            state="fold",
            cost="delta",
        ),
        "split_heads": OpSpec(
            19,
            "x as `heads` equal runs of columns, each of which is split as by `split`: an output "
            "has its slices of all runs one after the other",
            (_value("x", "r", "w"),),
            output=None,
            attributes=(_int("heads", 1, MAX_HEADS),),
            where=(("heads", "divides", "w"),),
        ),
        "scale_rows": OpSpec(
            20,
            "`x * factor` of the same row",
            (_value("x", "r", "w"), _value("factor", "r", "1")),
            in_place=True,
        ),
        "time_step": OpSpec(
            21,
            "`softplus(x + bias)`, at least `low` and at most `high`",
            (_value("x", "r", "w"),),
            (_raw("bias", "w"),),
            attributes=(
                Attribute("low", "float", 0.0, _MOST),
                Attribute("high", "float", 0.0, _MOST),
            ),
            in_place=True,
        ),
        "state_space": OpSpec(
            22,
            "per value head a matrix S [k_dim, v_dim] of the sequence, zero before position 0: "
            "`S = e^(-e^rate * step) * S + k (step * v).T`, `y = S.T @ q + skip * v`; q and k are "
            "those of key head `head * key_heads / heads`",
            (
                _value("q", "T", "key_heads*k_dim"),
                _value("k", "T", "key_heads*k_dim"),
                _value("v", "T", "heads*v_dim"),
                _value("step", "T", "heads"),
                _index("positions"),
                _index("sequences"),
            ),
            (_raw("rate", "heads"), _raw("skip", "heads")),
            output=("T", "heads*v_dim"),
            attributes=(
                _int("key_heads", 1, MAX_HEADS),
                _int("heads", 1, MAX_HEADS),
                _int("k_dim", 1, MAX_FOLD_DIM),
                _int("v_dim", 1, MAX_FOLD_DIM),
            ),
            where=(
                ("key_heads", "==", "state.key_heads"),
                ("heads", "==", "state.heads"),
                ("k_dim", "==", "state.k_dim"),
                ("v_dim", "==", "state.v_dim"),
                ("key_heads", "divides", "heads"),
                ("2", "==", "state.window"),
            ),
            state="fold",
            cost="fold",
        ),
        "attend": OpSpec(
            23,
            "attention as above, to the keys and values that an earlier `attention` has written",
            (
                _value("q", "r", "heads*head_dim"),
                _index("positions"),
                _index("sequences"),
            ),
            output=("r", "heads*head_dim"),
            attributes=_ATTENTION,
            where=_HEADS_OF_STATE,
            state="kv",
            writes=False,
            cost="attention",
            in_place=True,
        ),
        "slice": OpSpec(
            24,
            "run number `index`, from 0, of the `count` equal runs of columns that x consists of",
            (_value("x", "r", "count*size"),),
            output=("r", "size"),
            attributes=(
                _int("count", 1, MAX_SLICES),
                _int("size", 1, MAX_WIDTH),
                Attribute("index", "int", 0, MAX_SLICES - 1, place=True),
            ),
            where=(("index", "<", "count"),),
        ),
        "rescale": OpSpec(
            25,
            "`x * factor`, a weight of one number",
            (_value("x", "r", "w"),),
            (_raw("factor", "1"),),
            in_place=True,
        ),
        "layer_norm": OpSpec(
            26,
            "of each row: `(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight + bias`",
            (_value("x", "r", "w"),),
            (_raw("weight", "w"), _raw("bias", "w", optional=True)),
            attributes=(_positive("eps", 1.0),),
            in_place=True,
        ),
        "grouped_norm": OpSpec(
            27,
            "as `rms_norm`, each run with a part of the weight: `x / sqrt(mean(x^2) + eps) * "
            "weight` per run of `size` columns",
            (_value("x", "r", "w"),),
            (_raw("weight", "w"),),
            attributes=(_int("size", 1, MAX_WIDTH), _positive("eps", 1.0)),
            where=(("size", "divides", "w"),),
            in_place=True,
        ),
        "concat": OpSpec(
            28,
            "the columns of x, then those of y",
            (_value("x", "r", "w"), _value("y", "r", "w")),
            output=("r", "2*w"),
        ),
        "previous": OpSpec(
            29,
            "writes x at (sequence, position), then gives the row of the position before in the "
            "same sequence; zeros before position 0",
            (_value("x", "T", "w"), _index("positions"), _index("sequences")),
            output=("T", "w"),
            where=(("w", "==", "state.width"), ("2", "==", "state.window")),
            state="rows",
        ),
        "hadamard": OpSpec(
            30,
            "of each row of 2^k or 28 * 2^k columns: `H @ x / sqrt(w)`; H is Sylvester's matrix of "
            "2^k, or the Kronecker product of Paley's of order 28 (his second construction, for "
            "the field of 13) with that",
            (_value("x", "r", "w"),),
            # which leaves 64 to 2^24 and 28 * 16 to 28 * 2^22
            where=(("64", "divides", "w"), ("w", "divides", "28*4194304")),
            in_place=True,
        ),
        "adapter_gather": OpSpec(
            31,
            "row `tokens[t]` of the table of the sequence's adapter; zeros where it has none",
            (_index("tokens"), _index("sequences")),
            (_panel("tables", "adapters", "height", "rank"),),
            ("T", "rank"),
            _ADAPTERS,
            where=(("vocab", "<=", "height"), *_WHOLE_PANELS),
            cost="adapter",
        ),
        "adapter_down": OpSpec(
            32,
            "`x @ weight.T` with the matrix of the sequence's adapter; zeros where it has none",
            (_value("x", "r", "k"), _index("sequences")),
            (_panel("weights", "adapters", "rank", "k"),),
            ("r", "rank"),
            (_int("adapters", 1, MAX_ADAPTERS), _int("rank", 16, MAX_ADAPTER_RANK)),
            where=_WHOLE_PANELS[:1],
            cost="adapter",
        ),
        "adapter_up": OpSpec(
            33,
            "`x + low @ weight.T` with the first w rows of the matrix of the sequence's adapter; "
            "x where it has none",
            (_value("x", "r", "w"), _value("low", "r", "rank"), _index("sequences")),
            (_panel("weights", "adapters", "height", "rank"),),
            ("r", "w"),
            _ADAPTERS,
            where=(("w", "<=", "height"), *_WHOLE_PANELS),
            cost="adapter",
            in_place=True,
        ),
    }
)

# KV caches. With "i8" each token has one float32 scale per kv head for its key, and one for its
# value.
KV_DTYPES: MappingProxyType[str, int] = MappingProxyType({"f32": 0, "f16": 1, "i8": 2})
