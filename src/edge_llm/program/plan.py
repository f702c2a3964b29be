"""The plan: what a program computes, as numbered values and a list of instructions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from edge_llm.program.formats import WeightFormat

Rows = Literal["T", "R"]
Attribute = int | float
StateKind = Literal["kv", "fold"]  # no backend runs "fold" yet

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
    """What an instruction remembers of every position of a sequence: keys ``[heads, k_dim]`` and
    values ``[heads, v_dim]`` of kind "kv". Only the last ``window`` positions are read again; 0:
    all. The type of the stored numbers is a limit of loading."""

    name: str
    heads: int
    k_dim: int
    v_dim: int
    window: int = 0
    kind: StateKind = "kv"


@dataclass(frozen=True, slots=True)
class Group:
    """States that share a block table, by number: equal in kind, window and size of a row."""

    window: int
    states: tuple[int, ...]


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

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of the states, in the order of their first ones."""
        groups: dict[tuple[str, int, int, int, int], list[int]] = {}
        for number, state in enumerate(self.states):
            key = (state.kind, state.window, state.heads, state.k_dim, state.v_dim)
            groups.setdefault(key, []).append(number)
        return tuple(Group(key[1], tuple(numbers)) for key, numbers in groups.items())


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
