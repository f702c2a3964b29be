"""Find where a factor for each channel can move from one linear into what makes its input.

A linear computes W x. Where x is made channel by channel (a norm's weight, a product with rows of
another linear, the mean of values that attention takes), W may take a factor s for each column, and
what makes x be divided by it: the function stays, and every number costs the bytes it did. Rounding
differs: channels of a group, and of a token, share a scale.

What makes an input is read off the plan, so that no family is named here. A structure that is not
recognized is left as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_llm.program.formats import WeightFormat
from edge_llm.program.plan import Instruction, Method, Plan

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Producer:
    """A parameter whose elements, or rows, from ``begin`` on each make one channel."""

    parameter: str
    begin: int


@dataclass(frozen=True, slots=True)
class Fold:
    """One place. ``consumers`` are the matrices [N, K] that read the input, all of its readers;
    ``producers`` are what is divided; ``channels`` [K] says which channel of theirs each column
    reads, and ``norm``: they belong to a norm. Runs of ``head_dim`` channels, if that is not 0, may
    be mixed with each other by any matrix, not by factors alone."""

    consumers: tuple[str, ...]
    producers: tuple[Producer, ...]
    channels: Indices
    norm: bool
    head_dim: int = 0

    @property
    def count(self) -> int:
        """Return the number of channels."""
        return int(self.channels.max()) + 1


@dataclass(frozen=True, slots=True)
class _Source:
    producers: tuple[Producer, ...]
    channels: Indices
    norm: bool = False
    linear: bool = False  # no more than a product with rows
    head_dim: int = 0


def rounded_folds(folds: Iterable[Fold], formats: Mapping[str, WeightFormat]) -> tuple[Fold, ...]:
    """Return those with a matrix that is rounded to groups."""
    return tuple(
        fold
        for fold in folds
        if any(formats[name].is_made and formats[name].group for name in fold.consumers)
    )


def find_folds(plan: Plan, movable: Callable[[str], bool]) -> tuple[Fold, ...]:
    """Return the places of the language model, in its order.

    ``plan`` has a linear for each matrix (it is not merged), and ``movable`` tells whether a
    parameter's numbers may change: neither a checkpoint's own integers nor what serves twice.
    """
    uses = Counter(
        index
        for method in plan.methods.values()
        for instruction in method.instructions
        for index in instruction.weights
        if index >= 0
    )
    states = Counter(
        instruction.state for method in plan.methods.values() for instruction in method.instructions
    )
    alone = {weight.name for index, weight in enumerate(plan.weights) if uses[index] == 1}
    search = _Search(plan, plan.language_model, states)
    found = []
    for value, readers in search.readers.items():
        if any(reader is None or reader.op != "linear" for reader in readers):
            continue
        if search.method.values[value].rows != "T":  # the head's
            continue
        source = search.source(value)
        if source is None:
            continue
        matrices = tuple(plan.weights[reader.weights[0]].name for reader in readers if reader)
        fold = Fold(matrices, source.producers, source.channels, source.norm, source.head_dim)
        names = {*matrices, *(producer.parameter for producer in source.producers)}
        if names <= alone and all(map(movable, names)):
            found.append(fold)
    return tuple(found)


class _Search:
    """Who makes and who reads each value of a method; a reader None is the method's caller."""

    def __init__(self, plan: Plan, method: Method, states: Counter[int]) -> None:
        self.method = method
        self.readers: dict[int, list[Instruction | None]] = {}
        self._plan, self._states = plan, states
        self._maker: dict[int, Instruction] = {}
        for instruction in method.instructions:
            self._maker |= dict.fromkeys(instruction.outputs, instruction)
            for value in instruction.inputs:
                self.readers.setdefault(value, []).append(instruction)
        for value in method.outputs:
            self.readers.setdefault(value, []).append(None)

    def source(self, value: int) -> _Source | None:
        """Return what makes the channels of a value, if that can be divided."""
        maker = self._maker.get(value)
        if maker is None:
            return None
        if maker.op == "linear":
            return self._of(maker, self._width(value), linear=True)
        if maker.op == "rms_norm":
            whole = maker.attributes["size"] == self._width(value) and bool(maker.weights)
            return self._of(maker, self._width(value), norm=True) if whole else None
        if maker.op == "layer_norm":
            return self._of(maker, self._width(value), norm=True)
        if maker.op == "split":
            return self._split(maker, value)
        if maker.op == "mul":
            ways = (self._unshared(operand) for operand in reversed(maker.inputs))
            way = next((way for way in ways if way is not None), None)
            return None if way is None else _Source(way.producers, way.channels)
        if maker.op == "attention" and self._states[maker.state] == 1:
            return self._attention(maker)
        return None

    def _unshared(self, value: int) -> _Source | None:
        """Return the source of a value that one instruction alone reads, and no norm's: what
        is multiplied with a norm's output may be normed again."""
        source = self.source(value) if len(self.readers[value]) == 1 else None
        return None if source is None or source.norm else source

    def _of(
        self, maker: Instruction, width: int, *, norm: bool = False, linear: bool = False
    ) -> _Source:
        names = [self._plan.weights[index].name for index in maker.weights if index >= 0]
        return _Source(tuple(Producer(name, 0) for name in names), np.arange(width), norm, linear)

    def _split(self, maker: Instruction, value: int) -> _Source | None:
        source = self._unshared(maker.inputs[0])
        if source is None or len(source.channels) != self._width(maker.inputs[0]):
            return None
        if not np.array_equal(source.channels, np.arange(len(source.channels))):
            return None
        before: Sequence[int] = maker.outputs[: maker.outputs.index(value)]
        begin = sum(map(self._width, before))
        producers = tuple(
            Producer(producer.parameter, producer.begin + begin) for producer in source.producers
        )
        return _Source(producers, np.arange(self._width(value)), linear=source.linear)

    def _attention(self, maker: Instruction) -> _Source | None:
        source = self._unshared(maker.inputs[2])
        if source is None:
            return None
        heads, kv_heads = int(maker.attributes["heads"]), int(maker.attributes["kv_heads"])
        rows = source.channels.reshape(kv_heads, 1, -1)
        channels = np.broadcast_to(rows, (kv_heads, heads // kv_heads, rows.shape[2]))
        head_dim = rows.shape[2] if source.linear else 0
        return _Source(source.producers, channels.reshape(-1), head_dim=head_dim)

    def _width(self, value: int) -> int:
        return self.method.values[value].width
