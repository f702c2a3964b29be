"""What a plan must satisfy before a backend sees it.

The native core trusts all of this: a plan that passes reads and writes only inside its own values,
weights and states, whatever else it computes. Form (types, unknown keys) is `serialize.py`'s part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NoReturn

from edge_llm.errors import ProgramError
from edge_llm.program.documents import Documents
from edge_llm.program.formats import WEIGHT_FORMATS, WeightFormat
from edge_llm.program.ops import OPS
from edge_llm.program.pack import packed_bytes
from edge_llm.program.plan import (
    INPUT_NAMES,
    POSITIONS,
    ROWS,
    SEQUENCES,
    TOKENS,
    Instruction,
    Plan,
    Rows,
    State,
    Value,
    Weight,
)

MAX_COUNT = 65536  # values, weights, states, instructions
MAX_WIDTH = 2**22  # columns of a value
MAX_SIZE = 2**24  # rows and columns of a weight (tables have a row per position)
MAX_CONTEXT = 2**24
MAX_HEADS = 1024
MAX_HEAD_DIM = 256
MAX_OUTPUTS = 4  # of one instruction: the ABI's array

_FORMATS = frozenset(WEIGHT_FORMATS.values())
_INPUTS = (Value("T", 1, "i32"), Value("T", 1, "i32"), Value("T", 1, "i32"), Value("R", 1, "i32"))


def check_plan(plan: Plan) -> None:
    """Checks a plan by itself.

    Raises:
        ProgramError: the plan breaks a rule; the message names the place.
    """
    _bounded("plan.context", plan.context, 1, MAX_CONTEXT)
    _bounded("plan.vocab", plan.vocab, 1, MAX_WIDTH)
    for name in ("values", "weights", "states", "instructions"):
        _bounded(f"plan.{name} (count)", len(getattr(plan, name)), 0, MAX_COUNT)
    _check_values(plan.values)
    _check_weights(plan.weights)
    _check_states(plan.states)

    defined = [index < len(INPUT_NAMES) for index in range(len(plan.values))]
    state_users = [0] * len(plan.states)
    for index, instruction in enumerate(plan.instructions):
        _Checker(plan, instruction, f"plan.instructions[{index}] ({instruction.op})").check(defined)
        if instruction.state >= 0:
            state_users[instruction.state] += 1
    for index, users in enumerate(state_users):
        if users != 1:
            _fail(f"plan.states[{index}]", f"used by {users} instructions, expected exactly one")
    if not all(defined):
        _fail(f"plan.values[{defined.index(False)}]", "no instruction computes it")

    _bounded("plan.output", plan.output, len(INPUT_NAMES), len(plan.values) - 1)
    logits = plan.values[plan.output]
    if logits != Value("R", plan.vocab, "f32"):
        _fail("plan.output", f"is {_shape(logits)}, expected f32[R, {plan.vocab}] (the logits)")


def check_documents(documents: Documents, plan: Plan) -> None:
    """Checks the documents against the plan.

    Raises:
        ProgramError: they disagree, or a recommended sampling value is out of range.
    """
    model, tokenizer, generation = documents.model, documents.tokenizer, documents.generation
    for name in ("context", "vocab"):
        if getattr(model, name) != getattr(plan, name):
            _fail(f"model.{name}", f"{getattr(model, name)}, the plan has {getattr(plan, name)}")
    _bounded("tokenizer.size", tokenizer.size, 1, plan.vocab)
    ids = {"tokenizer.bos_id": tokenizer.bos_id, "tokenizer.eos_id": tokenizer.eos_id}
    ids |= {f"generation.stop_ids[{i}]": id_ for i, id_ in enumerate(generation.stop_ids)}
    for name, id_ in ids.items():
        if id_ is not None:
            _bounded(name, id_, 0, plan.vocab - 1)
    if tokenizer.add_bos and tokenizer.bos_id is None:
        _fail("tokenizer.add_bos", "true, but there is no bos_id")
    _bounded("generation.temperature", generation.temperature, 0.0, 2.0)
    _bounded("generation.top_p", generation.top_p, 0.0, 1.0)
    _bounded("generation.min_p", generation.min_p, 0.0, 1.0)
    if not 0.0 < generation.repetition_penalty <= 10.0:
        _fail("generation.repetition_penalty", "expected more than 0, at most 10")


class _Checker:
    """The rules of one instruction."""

    def __init__(self, plan: Plan, instruction: Instruction, path: str) -> None:
        self._plan = plan
        self._instruction = instruction
        self._path = path

    def check(self, defined: list[bool]) -> None:
        """Checks the instruction; ``defined`` says which values exist so far, and is updated."""
        op = self._instruction
        spec = OPS.get(op.op)
        if spec is None:
            self._fail("unknown operator")
        self._count("inputs", len(op.inputs), len(spec.inputs))
        self._count("weights", len(op.weights), len(spec.weights))
        if spec.outputs is not None:
            self._count("outputs", len(op.outputs), spec.outputs)
        self._bounded("outputs (count)", len(op.outputs), 1, MAX_OUTPUTS)
        self._check_attributes(dict(spec.attributes))

        last = len(self._plan.values) - 1
        for index in op.inputs:
            self._bounded("input", index, 0, last)
            if not defined[index]:
                self._fail(f"reads value {index} before it is computed")
        for name, number in zip(spec.weights, op.weights, strict=True):
            absent = -1 if name.endswith("?") else 0
            self._bounded(f"weight {name}", number, absent, len(self._plan.weights) - 1)
        self._bounded(
            "state", op.state, *((0, len(self._plan.states) - 1) if spec.state else (-1, -1))
        )
        for index in op.outputs:
            self._bounded("output", index, 0, last)
            if defined[index]:
                self._fail(f"value {index} is computed twice")
            defined[index] = True
        _RULES[op.op](self)

    # --- operators -------------------------------------------------------------------------------

    def embedding(self) -> None:
        self._graph_input(0, TOKENS)
        rows, width = self._matrix(0)
        if rows < self._plan.vocab:
            self._fail(f"the table has {rows} rows for a vocabulary of {self._plan.vocab}")
        self._output("T", width)

    def linear(self) -> None:
        x = self._x()
        n, k = self._matrix(0)
        if k != x.width:
            self._fail(f"the weight is [{n}, {k}], the input {_shape(x)}")
        if self._instruction.weights[1] >= 0 and self._raw(1) != (n,):
            self._fail(f"the bias is {list(self._raw(1))}, expected [{n}]")
        self._output(x.rows, n)

    def rms_norm(self) -> None:
        x = self._x()
        size = self._int("size", 1, MAX_WIDTH)
        if x.width % size:
            self._fail(f"size {size} does not divide the width of {_shape(x)}")
        if self._raw(0) != (size,):
            self._fail(f"the weight is {list(self._raw(0))}, expected [{size}]")
        if not 0.0 < self._float("eps") <= 1.0:
            self._fail("eps: expected more than 0, at most 1")
        self._output(x.rows, x.width)

    def rope(self) -> None:
        x = self._x()
        self._graph_input(1, POSITIONS)
        if x.rows != "T":
            self._fail(f"the input is {_shape(x)}, expected T rows")
        head_dim = self._int("head_dim", 2, MAX_HEAD_DIM)
        self._heads("heads", x, head_dim)
        table = self._raw(0)
        if len(table) != 2 or self._raw(1) != table:
            self._fail(f"cos is {list(table)}, sin {list(self._raw(1))}, expected both [P, d]")
        if table[0] < self._plan.context:
            self._fail(f"the tables have {table[0]} rows for a context of {self._plan.context}")
        if 2 * table[1] > head_dim:
            self._fail(f"the tables rotate {2 * table[1]} columns of a head of {head_dim}")
        self._output("T", x.width)

    def attention(self) -> None:
        q, k, v = (self._f32(index) for index in range(3))
        self._graph_input(3, POSITIONS)
        self._graph_input(4, SEQUENCES)
        head_dim = self._int("head_dim", 1, MAX_HEAD_DIM)
        heads = self._heads("heads", q, head_dim)
        kv_heads = self._heads("kv_heads", k, head_dim)
        if heads % kv_heads:
            self._fail(f"{kv_heads} kv_heads do not divide {heads} heads")
        if q.rows != "T" or k.rows != "T" or v != k:
            self._fail(
                f"q, k, v are {_shape(q)}, {_shape(k)}, {_shape(v)}: expected T rows, k like v"
            )
        state = self._plan.states[self._instruction.state]
        if (state.heads, state.k_dim) != (kv_heads, head_dim):
            self._fail(f"the state {state.name!r} has other heads")
        if self._float("scale") <= 0.0:
            self._fail("scale: expected more than 0")
        if self._float("softcap") < 0.0:
            self._fail("softcap: expected 0 (none) or more")
        self._output("T", q.width)

    def same(self) -> None:
        x = self._x()
        self._output(x.rows, x.width)

    def pair(self) -> None:
        x, y = self._x(), self._f32(1)
        if x != y:
            self._fail(f"the operands are {_shape(x)} and {_shape(y)}")
        self._output(x.rows, x.width)

    def softcap(self) -> None:
        if self._float("cap") <= 0.0:
            self._fail("cap: expected more than 0")
        self.same()

    def split(self) -> None:
        x = self._x()
        parts = [self._plan.values[index] for index in self._instruction.outputs]
        if any(part.rows != x.rows or part.dtype != "f32" for part in parts):
            self._fail(f"an output differs from {_shape(x)} in more than its width")
        if sum(part.width for part in parts) != x.width:
            self._fail(f"the outputs' widths do not add up to that of {_shape(x)}")

    def select_rows(self) -> None:
        x = self._x()
        self._graph_input(1, ROWS)
        if x.rows != "T":
            self._fail(f"the input is {_shape(x)}, expected T rows")
        self._output("R", x.width)

    # --- operands --------------------------------------------------------------------------------

    def _f32(self, index: int) -> Value:
        value = self._plan.values[self._instruction.inputs[index]]
        if value.dtype != "f32":
            self._fail(f"input {index} is {_shape(value)}, expected f32")
        return value

    def _x(self) -> Value:
        return self._f32(0)

    def _graph_input(self, index: int, number: int) -> None:
        got = self._instruction.inputs[index]
        if got != number:
            self._fail(f"input {index} is value {got}, expected {number} ({INPUT_NAMES[number]})")

    def _output(self, rows: Rows, width: int) -> None:
        got, expected = self._plan.values[self._instruction.outputs[0]], Value(rows, width)
        if got != expected:
            self._fail(f"the output is {_shape(got)}, expected {_shape(expected)}")

    def _weight(self, index: int) -> Weight:
        return self._plan.weights[self._instruction.weights[index]]

    def _matrix(self, index: int) -> tuple[int, int]:
        weight = self._weight(index)
        if not weight.format.is_panel:
            self._fail(f"{weight.name} is {weight.format.name}, expected packed panels")
        return weight.shape[0], weight.shape[1]

    def _raw(self, index: int) -> tuple[int, ...]:
        weight = self._weight(index)
        if weight.format.is_panel:
            self._fail(f"{weight.name} is {weight.format.name}, expected raw_f32")
        return weight.shape

    def _heads(self, name: str, x: Value, head_dim: int) -> int:
        heads = self._int(name, 1, MAX_HEADS)
        if heads * head_dim != x.width:
            self._fail(f"{heads} {name} of {head_dim} do not make up {_shape(x)}")
        return heads

    # --- attributes ------------------------------------------------------------------------------

    def _check_attributes(self, kinds: Mapping[str, str]) -> None:
        attributes = self._instruction.attributes
        if attributes.keys() != kinds.keys():
            self._fail(f"attributes {sorted(attributes)}, expected {sorted(kinds)}")
        for name, value in attributes.items():
            if kinds[name] == "int" and (not isinstance(value, int) or isinstance(value, bool)):
                self._fail(f"{name}: expected an integer")
            if not (math.isfinite(value) and abs(value) <= 2.0**127):
                self._fail(f"{name}: expected a finite float32")

    def _int(self, name: str, low: int, high: int) -> int:
        value = self._instruction.attributes[name]
        self._bounded(name, value, low, high)
        return int(value)

    def _float(self, name: str) -> float:
        return float(self._instruction.attributes[name])

    def _count(self, name: str, got: int, expected: int) -> None:
        if got != expected:
            self._fail(f"{got} {name}, expected {expected}")

    def _bounded(self, name: str, value: float, low: float, high: float) -> None:
        _bounded(f"{self._path}: {name}", value, low, high)

    def _fail(self, problem: str) -> NoReturn:
        _fail(self._path, problem)


_RULES: Mapping[str, Callable[[_Checker], None]] = MappingProxyType(
    {
        "embedding": _Checker.embedding,
        "linear": _Checker.linear,
        "rms_norm": _Checker.rms_norm,
        "rope": _Checker.rope,
        "attention": _Checker.attention,
        "silu": _Checker.same,
        "gelu": _Checker.same,
        "mul": _Checker.pair,
        "add": _Checker.pair,
        "scale": _Checker.same,
        "split": _Checker.split,
        "select_rows": _Checker.select_rows,
        "softcap": _Checker.softcap,
    }
)


def _check_values(values: tuple[Value, ...]) -> None:
    if values[: len(_INPUTS)] != _INPUTS:
        _fail(
            "plan.values",
            f"the first four must be i32[T, 1] three times and i32[R, 1]: {INPUT_NAMES}",
        )
    for index, value in enumerate(values[len(_INPUTS) :], len(_INPUTS)):
        path = f"plan.values[{index}]"
        if value.dtype != "f32" or value.rows not in ("T", "R"):
            _fail(path, f"is {_shape(value)}, expected f32 with T or R rows")
        _bounded(f"{path}.width", value.width, 1, MAX_WIDTH)


def _check_weights(weights: tuple[Weight, ...]) -> None:
    names: set[str] = set()
    stored: dict[str, tuple[WeightFormat, tuple[int, ...]]] = {}
    for index, weight in enumerate(weights):
        path = f"plan.weights[{index}] ({weight.name})"
        if weight.name in names:
            _fail(path, "the name is taken")
        names.add(weight.name)
        if weight.format not in _FORMATS:
            _fail(path, f"no such format: {weight.format}")
        ranks = (2,) if weight.format.is_panel else (1, 2)
        if len(weight.shape) not in ranks:
            _fail(path, f"shape {list(weight.shape)} does not suit {weight.format.name}")
        for size in weight.shape:
            _bounded(f"{path}.shape", size, 1, MAX_SIZE)
        if weight.format.is_panel:
            try:
                packed_bytes(weight.format, *weight.shape)
            except ProgramError as exc:  # what only the packed layout knows: groups divide K
                _fail(path, str(exc))
        if not weight.tensor or weight.tensor.startswith("_pad."):
            _fail(path, f"{weight.tensor!r} cannot name a weight's tensor")
        known = stored.setdefault(weight.tensor, (weight.format, weight.shape))
        if known != (weight.format, weight.shape):
            _fail(path, f"shares tensor {weight.tensor!r} with a weight of another format or shape")


def _check_states(states: tuple[State, ...]) -> None:
    names: set[str] = set()
    for index, state in enumerate(states):
        path = f"plan.states[{index}] ({state.name})"
        if state.name in names:
            _fail(path, "the name is taken")
        names.add(state.name)
        _bounded(f"{path}.heads", state.heads, 1, MAX_HEADS)
        _bounded(f"{path}.k_dim", state.k_dim, 1, MAX_HEAD_DIM)
        _bounded(f"{path}.v_dim", state.v_dim, state.k_dim, state.k_dim)
        _bounded(f"{path}.window", state.window, 0, 2**31 - 1)


def _shape(value: Value) -> str:
    return f"{value.dtype}[{value.rows}, {value.width}]"


def _bounded(path: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also true for NaN
        _fail(path, f"is {value}, expected {low} to {high}")


def _fail(path: str, problem: str) -> NoReturn:
    raise ProgramError(f"{path}: {problem}")
