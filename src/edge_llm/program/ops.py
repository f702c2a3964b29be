"""The closed operator set of the plan: the one table that export, core, oracle and checks share.

Every activation is a float32 matrix ``[T, width]`` or ``[R, width]``. Heads are folded into the
width; operators that care carry ``heads`` and ``head_dim`` as attributes. Operators are unfused:
fusion is the business of the backend that runs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

AttributeKind = Literal["int", "float"]


@dataclass(frozen=True, slots=True)
class OpSpec:
    """One operator.

    ``code`` is its number in the native ABI. ``inputs`` and ``weights`` name the operands in
    order (a trailing ``?`` marks one that may be absent, index -1). ``outputs`` is their number;
    None means one or more. ``attributes`` gives names and kinds in the order of the native ABI
    (ints and floats are numbered apart).
    """

    code: int
    inputs: tuple[str, ...]
    weights: tuple[str, ...] = ()
    outputs: int | None = 1
    state: bool = False
    attributes: tuple[tuple[str, AttributeKind], ...] = ()


OPS: MappingProxyType[str, OpSpec] = MappingProxyType(
    {
        # y[t] = table[tokens[t]]
        "embedding": OpSpec(0, ("tokens",), ("table",)),
        # y = x @ weight.T + bias; integer weights quantize each row of x to int8 first
        "linear": OpSpec(1, ("x",), ("weight", "bias?")),
        # per run of `size` columns: y = x / sqrt(mean(x^2) + eps) * weight[size]
        "rms_norm": OpSpec(2, ("x",), ("weight",), attributes=(("size", "int"), ("eps", "float"))),
        # half-split rotation of the first 2d columns of each head; tables are [P, d]
        "rope": OpSpec(
            3,
            ("x", "positions"),
            ("cos", "sin"),
            attributes=(("heads", "int"), ("head_dim", "int")),
        ),
        # writes k, v at (sequence, position), then causal attention within the sequence
        "attention": OpSpec(
            4,
            ("q", "k", "v", "positions", "sequences"),
            state=True,
            attributes=(
                ("heads", "int"),
                ("kv_heads", "int"),
                ("head_dim", "int"),
                ("scale", "float"),
                ("softcap", "float"),  # 0: none; else scores = cap * tanh(scores / cap)
            ),
        ),
        "silu": OpSpec(5, ("x",)),
        "gelu": OpSpec(6, ("x",)),  # tanh approximation
        "mul": OpSpec(7, ("x", "y")),
        "add": OpSpec(8, ("x", "y")),
        "scale": OpSpec(9, ("x",), attributes=(("factor", "float"),)),
        # consecutive column slices; the widths of the outputs add up to that of x
        "split": OpSpec(10, ("x",), outputs=None),
        # y[r] = x[rows[r]]
        "select_rows": OpSpec(11, ("x", "rows")),
        "softcap": OpSpec(12, ("x",), attributes=(("cap", "float"),)),
    }
)

# Kinds of states: program/plan.py.
STATE_KINDS: MappingProxyType[str, int] = MappingProxyType({"kv": 0, "fold": 1})

# KV caches. With "i8" each token has one float32 scale per kv head for its key, and one for its
# value.
KV_DTYPES: MappingProxyType[str, int] = MappingProxyType({"f32": 0, "f16": 1, "i8": 2})
