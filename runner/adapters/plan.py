"""A plan with adapters beside its weights.

Behind each linear whose matrix an adapter changes, and behind the embedding, come instructions that
add what the adapter of each row makes of the same input, to a joined linear's parts:

    linear:     y + up @ (down @ x)        adapter_down, adapter_up
    embedding:  y + up @ down[:, token]    adapter_gather, adapter_up

Rows without an adapter keep their bits. The matrices of all adapters lie in one stack, so that they
are padded to the largest rank, and are zeros where an adapter leaves a matrix alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import ConfigError
from edge_llm.program.check import check_plan
from edge_llm.program.formats import WEIGHT_FORMATS
from edge_llm.program.ops import MAX_ADAPTER_RANK, MAX_ADAPTERS
from edge_llm.program.pack import PANEL, pack_float
from edge_llm.program.plan import SEQUENCES, Instruction, Method, Plan, Value, Weight, matrix
from edge_llm.runner.adapters.adapter import Adapter, Float32
from edge_llm.runner.adapters.factors import Factors
from edge_llm.runner.adapters.parameters import Part, parameters_of

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Adapted:
    """A plan with adapters, the packed bytes of their weights by tensor, and their digests in the
    order of their numbers, by name."""

    plan: Plan
    weights: Mapping[str, Bytes]
    digests: Mapping[str, bytes]


def adapted(plan: Plan, adapters: Sequence[Adapter], factors: Factors) -> Adapted:
    """Return ``plan`` with ``adapters``, whose parameters are all among `parameters_of` it, in
    their shapes. ``factors`` are what the program's matrices were multiplied with.

    Raises:
        ConfigError: too many adapters, or a rank that is too large.
        CheckpointError: an adapter's numbers cannot be read, or are not finite.
    """
    if len(adapters) > MAX_ADAPTERS:
        raise ConfigError(f"{len(adapters)} adapters, expected at most {MAX_ADAPTERS}")
    stacks = _Stacks(plan, adapters, factors)
    methods = {
        name: method if method.signature == "draft" else _rewritten(method, stacks)
        for name, method in plan.methods.items()
    }
    made = replace(plan, weights=(*plan.weights, *stacks.weights), methods=methods)
    check_plan(made)
    digests = {adapter.name: adapter.digest for adapter in adapters}
    return Adapted(made, stacks.data, digests)


@dataclass(frozen=True, slots=True)
class _Up:
    """The weight ``up`` of one parameter: the slice of the linear's output that it is added to, the
    rank that it has, and the rows of each of its matrices."""

    place: int
    weight: int
    rank: int
    height: int


@dataclass(frozen=True, slots=True)
class _Stack:
    """The weight ``down`` beside one weight of the plan, of ``rows`` for each adapter where it is a
    table, and what is made of its columns, in their order."""

    down: int
    rows: int
    ups: tuple[_Up, ...]
    whole: bool  # the weight has no other parameters

    @property
    def rank(self) -> int:
        """The columns of what ``down`` gives."""
        return sum(up.rank for up in self.ups)


class _Stacks:
    """The weights of the adapters, made as they are first used."""

    def __init__(self, plan: Plan, adapters: Sequence[Adapter], factors: Factors) -> None:
        self._plan, self._adapters, self._factors = plan, adapters, factors
        self.count = len(adapters)
        self.weights: list[Weight] = []
        self.data: dict[str, Bytes] = {}
        changed = {name for adapter in adapters for name in adapter.pairs}
        self._parts: dict[int, list[tuple[str, Part]]] = {}
        for name, part in parameters_of(plan).items():
            if name in changed:
                self._parts.setdefault(part.weight, []).append((name, part))
        self._made: dict[int, _Stack] = {}

    def of(self, weight: int) -> _Stack | None:
        """Return the stack beside a weight; None if no adapter changes it."""
        if weight not in self._parts:
            return None
        if weight not in self._made:
            self._made[weight] = self._make(weight, self._parts[weight])
        return self._made[weight]

    def _make(self, number: int, parts: list[tuple[str, Part]]) -> _Stack:
        weight = self._plan.weights[number]
        downs, codes, ups = [], [], []
        for name, part in parts:
            down, up, code = self._numbers(weight, name, part)
            index = self._add(f"{name}.adapters.up", up, code)
            ups.append(_Up(part.place, index, up.shape[2], up.shape[1]))
            downs.append(down)
            codes.append(code)
        down = np.concatenate(downs, axis=1)
        if parts[0][1].table:  # a row for each token
            count, rank, rows = down.shape
            turned = np.zeros((count, _padded(rows), rank), np.float32)
            turned[:, :rows] = down.transpose(0, 2, 1)
            down = turned
        code = codes[0] if len(set(codes)) == 1 else "f32"
        index = self._add(f"{weight.name}.adapters.down", down, code)
        return _Stack(index, down.shape[1], tuple(ups), len(parts) == 1 and parts[0][1].whole)

    def _numbers(self, weight: Weight, name: str, part: Part) -> tuple[Float32, Float32, str]:
        """Return the stacks of one parameter, [adapters, rank, columns] and [adapters, rows, rank],
        and the type that its adapters have them in."""
        pairs = [adapter.pairs.get(name) for adapter in self._adapters]
        rank = _padded(max(pair.rank for pair in pairs if pair is not None))
        if rank > MAX_ADAPTER_RANK:
            raise ConfigError(f"{name} has a rank of {rank}, expected at most {MAX_ADAPTER_RANK}")
        n, k = (part.columns, part.rows) if part.table else (part.rows, part.columns)
        downs = np.zeros((self.count, rank, k), np.float32)
        ups = np.zeros((self.count, _padded(n), rank), np.float32)
        for index, pair in enumerate(pairs):
            if pair is not None:
                down, up = self._factors.applied(weight, part, pair.down(), pair.up())
                downs[index, : pair.rank], ups[index, :n, : pair.rank] = down, up
        codes = {pair.code for pair in pairs if pair is not None}
        return downs, ups, codes.pop() if len(codes) == 1 else "f32"

    def _add(self, name: str, stack: Float32, code: str) -> int:
        """Add matrices [adapters, rows, columns], whose rows are whole panels, in the type ``code``
        if that holds them as they are, and return the number of their weight."""
        flat = stack.reshape(-1, stack.shape[2])
        form = WEIGHT_FORMATS[code] if _fits(flat, code) else WEIGHT_FORMATS["f32"]
        self.data[name] = pack_float(flat, form).reshape(-1)
        self.weights.append(Weight(name, name, form, stack.shape))
        return len(self._plan.weights) + len(self.weights) - 1


def _padded(size: int) -> int:
    return -(-size // PANEL) * PANEL


def _fits(values: Float32, code: str) -> bool:
    """Return whether a type holds all of these values exactly."""
    if code == "bf16":
        return not (values.view(np.uint32) & 0xFFFF).any()
    if code == "f16":
        with np.errstate(over="ignore"):
            return np.array_equal(values.astype(np.float16).astype(np.float32), values)
    return True


class _Rewriting:
    """The instructions and values of a method, numbered anew as they are made."""

    def __init__(self, method: Method) -> None:
        self._method = method
        self._numbers = {number: number for number in method.inputs}
        self.values: list[Value] = [method.values[number] for number in method.inputs]
        self.instructions: list[Instruction] = []

    def copy(self, op: Instruction) -> None:
        """Add an instruction of the method."""
        first = len(self.values)
        outputs = tuple(range(first, first + len(op.outputs)))
        self.values += [self._method.values[number] for number in op.outputs]
        inputs = tuple(map(self.number, op.inputs))
        self.instructions.append(replace(op, inputs=inputs, outputs=outputs))
        self._numbers |= dict(zip(op.outputs, outputs, strict=True))

    def number(self, value: int) -> int:
        """Return the new number of a value of the method."""
        return self._numbers[value]

    def adapt(self, stack: _Stack, count: int, op: Instruction, targets: Sequence[int]) -> None:
        """Add what ``count`` adapters make of the input of ``op`` to values of the method."""
        table = op.op == "embedding"
        lows = [
            self._emit(
                "adapter_gather" if table else "adapter_down",
                (self.number(op.inputs[0]), SEQUENCES),
                [stack.rank],
                op,
                (stack.down,),
                adapters=count,
                rank=stack.rank,
                **({"height": stack.rows} if table else {}),
            )
        ][0]
        if len(stack.ups) > 1:
            lows = self._emit("split", tuple(lows), [up.rank for up in stack.ups], op)
        for up, low in zip(stack.ups, lows, strict=True):
            target = targets[up.place]
            (made,) = self._emit(
                "adapter_up",
                (self.number(target), low, SEQUENCES),
                [self._method.values[target].width],
                op,
                (up.weight,),
                adapters=count,
                rank=up.rank,
                height=up.height,
            )
            self._numbers[target] = made

    def _emit(
        self,
        name: str,
        inputs: tuple[int, ...],
        widths: Sequence[int],
        like: Instruction,
        weights: tuple[int, ...] = (),
        **attributes: int,
    ) -> list[int]:
        rows = self._method.values[like.outputs[0]].rows
        outputs = list(range(len(self.values), len(self.values) + len(widths)))
        self.values += [matrix(rows, width) for width in widths]
        self.instructions.append(
            Instruction(name, inputs, tuple(outputs), weights, -1, dict(attributes), like.source)
        )
        return outputs


def _rewritten(method: Method, stacks: _Stacks) -> Method:
    new = _Rewriting(method)
    joined: dict[int, tuple[_Stack, Instruction]] = {}  # by value: linears of several parameters
    for op in method.instructions:
        new.copy(op)
        if op.op == "split" and op.inputs[0] in joined:
            new.adapt(joined[op.inputs[0]][0], stacks.count, joined[op.inputs[0]][1], op.outputs)
        stack = stacks.of(op.weights[0]) if op.op in ("linear", "embedding") else None
        if stack is not None and stack.whole:
            new.adapt(stack, stacks.count, op, op.outputs)
        elif stack is not None:
            joined[op.outputs[0]] = stack, op
    outputs = tuple(map(new.number, method.outputs))
    return replace(
        method, values=tuple(new.values), instructions=tuple(new.instructions), outputs=outputs
    )
