"""The plan: what a program computes, as numbered values and a list of instructions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from edge_llm.program.formats import WeightFormat

Rows = Literal["T", "R"]
Attribute = int | float

# Values 0..3 of every plan are the int32 inputs of the graph contract.
TOKENS, POSITIONS, SEQUENCES, ROWS = range(4)
INPUT_NAMES = ("tokens", "positions", "sequences", "rows")

_LAYER = re.compile(r"\blayers\.(\d+)\b")


@dataclass(frozen=True, slots=True)
class Value:
    """A matrix ``[T or R, width]`` of ``dtype``; the four inputs have width 1 and dtype i32."""

    rows: Rows
    width: int
    dtype: Literal["f32", "i32"] = "f32"


@dataclass(frozen=True, slots=True)
class Weight:
    """A constant: logical ``shape`` ([N, K], or [N] for vectors), stored as ``format`` in the
    file's tensor ``tensor``. Two weights may name one tensor (tied embedding and head)."""

    name: str
    tensor: str
    format: WeightFormat
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class State:
    """The KV cache of one attention instruction."""

    name: str
    kv_heads: int
    head_dim: int
    dtype: str  # a key of ops.KV_DTYPES


@dataclass(frozen=True, slots=True)
class Instruction:
    """``op`` is a key of ops.OPS; inputs and outputs are value numbers, weights are indices into
    ``Plan.weights`` (-1: absent), ``state`` is an index into ``Plan.states`` (-1: none).

    ``source`` says where it came from: the module path and line of the model definition."""

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    weights: tuple[int, ...] = ()
    state: int = -1
    attributes: dict[str, Attribute] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole program. ``values[0:4]`` are the inputs; ``output`` is the logits ``[R, vocab]``."""

    context: int
    vocab: int
    values: tuple[Value, ...]
    weights: tuple[Weight, ...]
    states: tuple[State, ...]
    instructions: tuple[Instruction, ...]
    output: int


def layer_of(plan: Plan, instruction: Instruction) -> int | None:
    """The decoder layer that an instruction belongs to, by its source or its weights' names; None
    for what stands outside of layers."""
    names = [
        instruction.source,
        *(plan.weights[index].name for index in instruction.weights if index >= 0),
    ]
    for name in names:
        if found := _LAYER.search(name):
            return int(found[1])
    return None
