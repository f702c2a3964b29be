"""The plan: what a program computes, as numbered values and a list of instructions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal, cast, get_args

from edge_llm.errors import ProgramError
from edge_llm.program.formats import Activations, WeightFormat
from edge_llm.program.ops import StateKind

Rows = Literal["T", "R"]
Dim = int | str
Dtype = Literal["f32", "i32"]
# What the runner does with a method. Only "causal_lm", "embed" and "draft" are run today.
Signature = Literal["causal_lm", "embed", "encode_image", "classify", "draft"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
SIGNATURES: tuple[Signature, ...] = get_args(Signature)
Attribute = int | float

# Values 0..3 of every plan are the int32 inputs of the graph contract.
TOKENS, POSITIONS, SEQUENCES, ROWS = range(4)
INPUT_NAMES = ("tokens", "positions", "sequences", "rows")
HIDDEN = len(INPUT_NAMES)  # the input of a "draft" besides

_LAYER = re.compile(r"\blayers\.(\d+)\b")


@dataclass(frozen=True, slots=True)
class Value:
    """An array of rank 1 to 4. A dimension is a number, or the name of one that changes from step
    to step (``T`` tokens, ``R`` wanted rows, ``N`` images)."""

    dims: tuple[Dim, ...]
    dtype: Dtype = "f32"

    @property
    def is_matrix(self) -> bool:
        """Tell whether this is a matrix ``[T or R, width]``, or a vector ``[T or R]``."""
        return (
            len(self.dims) in (1, 2)
            and self.dims[0] in ("T", "R")
            and all(isinstance(dim, int) for dim in self.dims[1:])
        )

    @property
    def rows(self) -> Rows:
        """Return what the rows of a matrix are."""
        return cast(Rows, self.dims[0])

    @property
    def width(self) -> int:
        """The columns of a matrix; 1 for a vector."""
        return cast(int, self.dims[1]) if len(self.dims) == 2 else 1


def matrix(rows: Rows, width: int) -> Value:
    """Return a float32 matrix ``[rows, width]``."""
    return Value((rows, width))


# What every causal language model is given, by the names above.
INPUTS = (Value(("T",), "i32"), Value(("T",), "i32"), Value(("T",), "i32"), Value(("R",), "i32"))


@dataclass(frozen=True, slots=True)
class Weight:
    """A constant: logical ``shape`` ([N, K], [experts, N, K], or [N] for vectors), stored as
    ``format`` in the file's tensor ``tensor``. Two weights may name one tensor (tied embedding and
    head). ``activations`` says how rows that it is multiplied with are rounded, if its format is
    one of integers."""

    name: str
    tensor: str
    format: WeightFormat
    shape: tuple[int, ...]
    activations: Activations = "token"

    @property
    def matrix(self) -> tuple[int, int]:
        """Return rows and columns with the matrices of a stack one below the other, as they lie in
        the file; a vector is a column."""
        if len(self.shape) == 1:
            return self.shape[0], 1
        return prod(self.shape[:-1]), self.shape[-1]


@dataclass(frozen=True, slots=True)
class State:
    """The memory of an instruction for every position of a sequence. Only the last ``window``
    positions are read again; 0: all.

    Of kind "kv" it is keys ``[heads, k_dim]`` and values ``[heads, v_dim]``, whose type is a limit
    of loading; of kind "rows" a row of ``width`` float32 numbers. Of kind "fold" it is what the
    position adds to a float32 matrix ``[k_dim, v_dim]`` of each of ``heads``, whose keys are those
    of ``key_heads``, and the matrices before some positions. ``sizes`` has what ops.STATE_SIZES
    names for the kind."""

    name: str
    kind: StateKind
    sizes: Mapping[str, int]
    window: int = 0

    @classmethod
    def kv(cls, name: str, heads: int, k_dim: int, v_dim: int, window: int = 0) -> State:
        """Return a state of keys and values."""
        return cls(name, "kv", {"heads": heads, "k_dim": k_dim, "v_dim": v_dim}, window)

    @classmethod
    def rows(cls, name: str, width: int, window: int) -> State:
        """Return a state of plain rows."""
        return cls(name, "rows", {"width": width}, window)

    @classmethod
    def fold(cls, name: str, key_heads: int, heads: int, k_dim: int, v_dim: int) -> State:
        """Return a state of matrices, which go on from the position before."""
        sizes = {"key_heads": key_heads, "heads": heads, "k_dim": k_dim, "v_dim": v_dim}
        return cls(name, "fold", sizes, 2)


@dataclass(frozen=True, slots=True)
class Group:
    """States that share a block table, by number: equal in kind, window and sizes."""

    kind: StateKind
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
class Method:
    """One thing that a program computes. ``inputs`` and ``outputs`` are value numbers; of a
    "causal_lm" and an "embed" values 0 to 3 are the inputs. The output is the logits ``[R, vocab]``
    of the one, and of the other the hidden states ``[R, width]`` that the head reads. A "draft"
    has those hidden states of every token ``[T, width]`` as value 4, and gives the logits of the
    token after, and hidden states of its own, ``[T, width]``."""

    signature: Signature
    inputs: tuple[int, ...]
    values: tuple[Value, ...]
    instructions: tuple[Instruction, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole program: methods by name, which share weights and states."""

    context: int
    vocab: int
    weights: tuple[Weight, ...]
    states: tuple[State, ...]
    methods: Mapping[str, Method]

    @classmethod
    def causal_lm(
        cls,
        *,
        context: int,
        vocab: int,
        values: tuple[Value, ...],
        weights: tuple[Weight, ...],
        states: tuple[State, ...],
        instructions: tuple[Instruction, ...],
        output: int,
    ) -> Plan:
        """Make a plan of one method, a causal language model."""
        inputs = tuple(range(len(INPUT_NAMES)))
        method = Method("causal_lm", inputs, values, instructions, (output,))
        return cls(context, vocab, weights, states, {method.signature: method})

    @property
    def language_model(self) -> Method:
        """The method that a runner generates text with.

        Raises:
            ProgramError: there is none.
        """
        method = self._method("causal_lm")
        if method is not None:
            return method
        kinds = ", ".join(f"{name} ({m.signature})" for name, m in self.methods.items())
        raise ProgramError(
            f"the program has the methods {kinds or '(none)'}, expected one of kind causal_lm, "
            "which every program that this version runs must have"
        )

    @property
    def embed(self) -> Method | None:
        """The method that computes hidden states; None if there is none."""
        return self._method("embed")

    @property
    def draft(self) -> Method | None:
        """The method that predicts further tokens; None if there is none."""
        return self._method("draft")

    @property
    def bidirectional(self) -> bool:
        """Tell whether tokens see those behind them. Then a text is computed in one step, and
        nothing can be generated: the logits are no predictions."""
        return any(op.attributes.get("bidirectional") for op in self.instructions)

    @property
    def without_draft(self) -> Plan:
        """The plan without its draft method, and what that alone needs: weights and states, which
        are the last."""
        methods = {name: m for name, m in self.methods.items() if m.signature != "draft"}
        used = [op for method in methods.values() for op in method.instructions]
        weights = 1 + max((number for op in used for number in op.weights), default=-1)
        states = 1 + max((op.state for op in used), default=-1)
        return replace(
            self, weights=self.weights[:weights], states=self.states[:states], methods=methods
        )

    def _method(self, signature: Signature) -> Method | None:
        found = (m for m in self.methods.values() if m.signature == signature)
        return next(found, None)

    @property
    def values(self) -> tuple[Value, ...]:
        """The values of `language_model`."""
        return self.language_model.values

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """The instructions of `language_model`."""
        return self.language_model.instructions

    @property
    def output(self) -> int:
        """The number of the logits ``[R, vocab]`` of `language_model`."""
        return self.language_model.outputs[0]

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of the states, in the order of their first ones."""
        groups: dict[tuple[StateKind, int, tuple[tuple[str, int], ...]], list[int]] = {}
        for number, state in enumerate(self.states):
            key = (state.kind, state.window, tuple(sorted(state.sizes.items())))
            groups.setdefault(key, []).append(number)
        return tuple(
            Group(kind, window, tuple(numbers)) for (kind, window, _), numbers in groups.items()
        )


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
