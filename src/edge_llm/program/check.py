"""The checks of a plan before a backend sees it.

The native core trusts all of this: a plan that passes reads and writes only inside its own values,
weights and states, whatever else it computes. Form (types, unknown keys) is `serialize.py`'s part.
"""

from __future__ import annotations

import math
import re
from typing import NoReturn

from edge_llm.errors import ProgramError
from edge_llm.program.cost import tensor_bytes
from edge_llm.program.documents import RERANK_FIELDS, Documents
from edge_llm.program.formats import WEIGHT_FORMATS, WeightFormat
from edge_llm.program.hidden import draft_part
from edge_llm.program.ops import (
    MAX_OUTPUTS,
    MAX_WIDTH,
    OPS,
    STATE_SIZES,
    Operand,
    OpSpec,
    Relation,
)
from edge_llm.program.plan import (
    HIDDEN,
    INPUT_NAMES,
    INPUTS,
    Instruction,
    Method,
    Plan,
    State,
    Value,
    Weight,
    matrix,
)

MAX_COUNT = 65536  # values, weights, states, instructions
MAX_SIZE = 2**24  # rows and columns of a weight (tables have a row per position)
MAX_CONTEXT = 2**24

_RUNNABLE = ("causal_lm", "embed", "draft")  # kinds of methods
_FORMATS = frozenset(WEIGHT_FORMATS.values())
_SYMBOL = re.compile(r"[A-Z][A-Za-z0-9_]{0,15}")


def check_plan(plan: Plan) -> None:
    """Checks a plan by itself.

    Raises:
        ProgramError: the plan breaks a rule; the message names the place.
    """
    _bounded("plan.context", plan.context, 1, MAX_CONTEXT)
    _bounded("plan.vocab", plan.vocab, 1, MAX_WIDTH)
    for name in ("weights", "states"):
        _bounded(f"plan.{name} (count)", len(getattr(plan, name)), 0, MAX_COUNT)
    _check_weights(plan.weights)
    _check_states(plan.states)
    users = [0] * len(plan.states)
    for name, method in plan.methods.items():
        own = [0] * len(plan.states)
        _check_method(plan, method, f"plan.methods[{name!r}]", own)
        users = list(map(max, users, own))  # methods share states
    kinds = [method.signature for method in plan.methods.values()]
    if not kinds or len(set(kinds)) != len(kinds):
        _fail(
            "plan.methods", f"kinds {', '.join(kinds) or '(none)'}, expected one or more, each once"
        )
    for index, count in enumerate(users):
        if count != 1:
            _fail(
                f"plan.states[{index}]",
                f"written by {count} instructions of a method, expected exactly one",
            )
    draft_part(plan)


def _check_method(plan: Plan, method: Method, path: str, users: list[int]) -> None:
    """Check one method; ``users`` counts the instructions that write each state.

    What operators mean is checked of the kind that can be run; of others, that every value is
    computed once, before it is read.
    """
    values, runnable = method.values, method.signature in _RUNNABLE
    for name in ("values", "instructions"):
        _bounded(f"{path}.{name} (count)", len(getattr(method, name)), 0, MAX_COUNT)
    _check_values(method, path)
    defined = [False] * len(values)
    for number in method.inputs:
        _bounded(f"{path}.inputs", number, 0, len(values) - 1)
        defined[number] = True
    for index, instruction in enumerate(method.instructions):
        where = f"{path}.instructions[{index}] ({instruction.op})"
        checker = _Checker(plan, method, instruction, where)
        if runnable:
            checker.check_counts()
        checker.check_order(defined)
        if runnable:
            checker.check_operands()
        if 0 <= instruction.state < len(users):
            spec = OPS.get(instruction.op)
            if spec is None or spec.writes:
                users[instruction.state] += 1
            elif not users[instruction.state]:
                _fail(where, f"reads state {instruction.state} before it is written")
    if not all(defined):
        _fail(f"{path}.values[{defined.index(False)}]", "no instruction computes it")
    for number in method.outputs:
        _bounded(f"{path}.outputs", number, 0, len(values) - 1)
    if not runnable:
        return
    count = 2 if method.signature == "draft" else 1
    if len(method.outputs) != count or set(method.outputs) & set(method.inputs):
        wanted = "two computed values" if count == 2 else "one computed value"
        _fail(f"{path}.outputs", f"is {list(method.outputs)}, expected {wanted}")
    output = values[method.outputs[0]]
    if count == 2 and values[method.outputs[1]] != values[HIDDEN]:
        own, given = (_shape(values[number]) for number in (method.outputs[1], HIDDEN))
        _fail(f"{path}.outputs", f"has hidden states {own}, expected {given} as it is given")
    if method.signature == "embed":
        if output != matrix("R", output.width):
            _fail(f"{path}.outputs", f"is {_shape(output)}, expected f32[R, width]")
    elif output != matrix("R", plan.vocab):
        _fail(f"{path}.outputs", f"is {_shape(output)}, expected f32[R, {plan.vocab}] (the logits)")


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
    if documents.embedding is not None:
        ids["embedding.end_id"] = documents.embedding.end_id
    if documents.rerank is not None:
        ids |= {"rerank.yes_id": documents.rerank.yes_id, "rerank.no_id": documents.rerank.no_id}
        for name in RERANK_FIELDS:
            _bounded(f"rerank.template ({name})", documents.rerank.template.count(name), 1, 1)
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
    """The rules of the operator table, for one instruction."""

    def __init__(self, plan: Plan, method: Method, instruction: Instruction, path: str) -> None:
        self._plan = plan
        self._values = method.values
        self._instruction = instruction
        self._path = path
        self._known: dict[str, int] = {"context": plan.context, "vocab": plan.vocab}
        self._rows: str | None = None  # what "r" stands for

    def check_order(self, defined: list[bool]) -> None:
        """Check that values are computed once, and before they are read; ``defined`` says which
        exist so far, and is updated."""
        for number in self._instruction.inputs:
            self._bounded("input", number, 0, len(self._values) - 1)
            if not defined[number]:
                self._fail(f"reads value {number} before it is computed")
        for number in self._instruction.outputs:
            self._bounded("output", number, 0, len(self._values) - 1)
            if defined[number]:
                self._fail(f"value {number} is computed twice")
            defined[number] = True

    def check_counts(self) -> None:
        """Check that the operands and attributes are those of the operator."""
        op = self._instruction
        spec = OPS.get(op.op)
        if spec is None:
            self._fail("unknown operator")
        self._count("inputs", len(op.inputs), len(spec.inputs))
        required = len(spec.weights)
        while required and spec.weights[required - 1].optional:
            required -= 1
        self._bounded("weights (count)", len(op.weights), required, len(spec.weights))
        if spec.output is not None:
            self._count("outputs", len(op.outputs), 1)
        self._bounded("outputs (count)", len(op.outputs), 1, MAX_OUTPUTS)
        self._check_attributes(spec)
        self._check_state(spec)

    def check_operands(self) -> None:
        """Check the kinds and shapes of the operands."""
        op = self._instruction
        spec = OPS[op.op]
        for operand, number in zip(spec.inputs, op.inputs, strict=True):
            self._check_input(operand, number)
        for operand, number in zip(spec.weights, op.weights, strict=False):
            self._check_weight(operand, number)
        self._check_outputs(spec)
        for left, relation, right in spec.where:
            self._check_relation(left, relation, right)
        if spec.cost == "experts":  # whose kernels read both side by side
            gate, up = (self._plan.weights[number].format.name for number in op.weights[:2])
            if gate != up:
                self._fail(f"gate is {gate} and up {up}, expected one format")

    def _check_attributes(self, spec: OpSpec) -> None:
        attributes = self._instruction.attributes
        names = [attribute.name for attribute in spec.attributes]
        if attributes.keys() != set(names):
            self._fail(f"attributes {sorted(attributes)}, expected {sorted(names)}")
        for attribute in spec.attributes:
            value = attributes[attribute.name]
            if attribute.kind == "int" and (not isinstance(value, int) or isinstance(value, bool)):
                self._fail(f"{attribute.name}: expected an integer")
            if not math.isfinite(value):
                self._fail(f"{attribute.name}: expected a finite float32")
            self._bounded(attribute.name, value, attribute.low, attribute.high)
            if attribute.above and value == attribute.low:
                self._fail(f"{attribute.name}: expected more than {attribute.low}")
            if attribute.kind == "int":
                self._known[attribute.name] = int(value)

    def _check_state(self, spec: OpSpec) -> None:
        number, states = self._instruction.state, self._plan.states
        self._bounded("state", number, *((0, len(states) - 1) if spec.state else (-1, -1)))
        if spec.state:
            state = states[number]
            if state.kind != spec.state:
                self._fail(f"state {state.name} is of kind {state.kind}, expected {spec.state}")
            sizes = {**state.sizes, "window": state.window}
            self._known |= {f"state.{name}": size for name, size in sizes.items()}

    def _check_input(self, operand: Operand, number: int) -> None:
        if operand.kind == "index":
            expected = INPUT_NAMES.index(operand.name)
            if number != expected:
                self._fail(f"input {operand.name} is value {number}, expected {expected}")
            return
        self._check_value(f"input {operand.name}", self._values[number], operand.dims)

    def _check_weight(self, operand: Operand, number: int) -> None:
        absent = -1 if operand.optional else 0
        self._bounded(f"weight {operand.name}", number, absent, len(self._plan.weights) - 1)
        if number < 0:
            return
        weight = self._plan.weights[number]
        if weight.format.is_panel != (operand.kind == "panel"):
            wanted = "packed panels" if operand.kind == "panel" else "raw_f32"
            self._fail(f"{weight.name} is {weight.format.name}, expected {wanted}")
        same = len(weight.shape) == len(operand.dims) and all(
            self._is(dim, size) for dim, size in zip(operand.dims, weight.shape, strict=True)
        )
        if not same:
            got = f"weight {operand.name} is {list(weight.shape)}"
            self._fail(f"{got}, expected {self._expected(operand.dims)}")

    def _check_outputs(self, spec: OpSpec) -> None:
        values = [self._values[number] for number in self._instruction.outputs]
        if spec.output is not None:
            self._check_value("the output", values[0], spec.output)
            return
        for value in values:
            self._check_value("an output", value, ("r", str(value.width)))
        width = self._values[self._instruction.inputs[0]].width
        if sum(value.width for value in values) != width:
            self._fail(f"the outputs' widths do not add up to {width}")
        heads = self._known.get("heads", 1)
        if any(value.width % heads for value in values):
            self._fail(f"the outputs' widths are no multiples of heads {heads}")

    def _check_value(self, what: str, value: Value, dims: tuple[str, ...]) -> None:
        rows, width = dims
        if rows == "r":
            rows = self._rows = self._rows or value.rows
        if value.dtype != "f32" or value.dims[0] != rows or not self._is(width, value.width):
            self._fail(f"{what} is {_shape(value)}, expected f32{self._expected((rows, width))}")

    def _check_relation(self, left: str, relation: Relation, right: str) -> None:
        a, b = self._number(left), self._number(right)
        holds = {"==": a == b, "<=": a <= b, "<": a < b, "divides": a > 0 and b % a == 0}[relation]
        if not holds:
            self._fail(f"{left} is {a}, {right} {b}: expected {left} {relation} {right}")

    # --- patterns --------------------------------------------------------------------------------

    def _is(self, pattern: str, size: int) -> bool:
        """Compare a size with its pattern; a new variable takes the size."""
        if pattern not in self._known and pattern.isidentifier():
            self._known[pattern] = size
        return self._number(pattern) == size

    def _number(self, pattern: str) -> int:
        return math.prod(
            int(name) if name.isdecimal() else self._known[name] for name in pattern.split("*")
        )

    def _expected(self, dims: tuple[str, ...]) -> str:
        known = {"T", "R"}
        return f"[{', '.join(d if d in known else self._worded(d) for d in dims)}]"

    def _worded(self, pattern: str) -> str:
        try:
            number = self._number(pattern)
        except KeyError:
            return pattern
        return str(number) if pattern.isdecimal() else f"{pattern} = {number}"

    def _count(self, name: str, got: int, expected: int) -> None:
        if got != expected:
            self._fail(f"{got} {name}, expected {expected}")

    def _bounded(self, name: str, value: float, low: float, high: float) -> None:
        _bounded(f"{self._path}: {name}", value, low, high)

    def _fail(self, problem: str) -> NoReturn:
        _fail(self._path, problem)


def _check_values(method: Method, path: str) -> None:
    runnable = method.signature in _RUNNABLE
    if runnable:
        count = len(INPUTS)
        inputs = count + (method.signature == "draft")
        if method.inputs != tuple(range(inputs)) or method.values[:count] != INPUTS:
            _fail(f"{path}.values", f"the first four must be the inputs {INPUT_NAMES}, int32")
        if inputs > count and not _is_hidden(method.values[HIDDEN:]):
            _fail(f"{path}.values[{HIDDEN}]", "expected f32[T, width], the hidden states")
    for index, value in enumerate(method.values):
        where = f"{path}.values[{index}]"
        _bounded(f"{where}.dims (count)", len(value.dims), 1, 4)
        for dim in value.dims:
            if isinstance(dim, int):
                _bounded(f"{where}.dims", dim, 1, MAX_WIDTH)
            elif _SYMBOL.fullmatch(dim) is None:
                _fail(where, f"{dim!r} names no dimension")
        runs = value.dtype == "f32" and len(value.dims) == 2 and value.is_matrix
        if runnable and index >= len(INPUTS) and not runs:
            _fail(where, f"is {_shape(value)}, expected f32[T or R, width]")


def _is_hidden(values: tuple[Value, ...]) -> bool:
    """Tell whether there are values, of which the first is a matrix with a row for each token."""
    return bool(values) and values[0].is_matrix and values[0] == matrix("T", values[0].width)


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
        ranks = (2, 3, 4) if weight.format.is_panel else (1, 2, 3, 4)
        if len(weight.shape) not in ranks:
            _fail(path, f"shape {list(weight.shape)} does not suit {weight.format.name}")
        for size in weight.shape:
            _bounded(f"{path}.shape", size, 1, MAX_SIZE)
        if weight.activations == "group" and weight.format.is_float:
            _fail(path, f"activations of {weight.format.name} are not rounded, got group")
        if weight.format.is_panel:
            try:
                tensor_bytes(weight)
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
        sizes = STATE_SIZES[state.kind]
        if state.sizes.keys() != sizes.keys():
            _fail(f"{path}.sizes", f"{sorted(state.sizes)}, expected {sorted(sizes)}")
        for size, most in sizes.items():
            _bounded(f"{path}.{size}", state.sizes[size], 1, most)
        if state.kind == "kv":
            _bounded(f"{path}.v_dim", state.sizes["v_dim"], *[state.sizes["k_dim"]] * 2)
        if state.kind == "fold" and state.sizes["heads"] % state.sizes["key_heads"]:
            heads, key_heads = state.sizes["heads"], state.sizes["key_heads"]
            _fail(f"{path}.heads", f"is {heads}, expected a multiple of key_heads {key_heads}")
        _bounded(f"{path}.window", state.window, 0, 2**31 - 1)


def _shape(value: Value) -> str:
    return f"{value.dtype}[{', '.join(map(str, value.dims))}]"


def _bounded(path: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also true for NaN
        _fail(path, f"is {value}, expected {low} to {high}")


def _fail(path: str, problem: str) -> NoReturn:
    raise ProgramError(f"{path}: {problem}")
