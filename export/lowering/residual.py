"""Find what an orthogonal matrix on the residual stream is folded into (R1 of SpinQuant).

All that layers pass on to each other may be multiplied with an orthogonal matrix: in what writes it
(the columns of the embedding, the rows and biases of linears whose output is added) and in what
reads it, behind norms, whose root mean square is that of the rotated row too. The weights of these
norms go into the columns of what reads them.

What belongs to the stream is found from the embedding on, through the operators that treat all
columns alike, forward and backward. Any other operator is in the way.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from edge_llm.program.plan import Instruction, Plan

_ALIKE = ("add", "scale", "rescale", "select_rows", "scale_rows")  # the first input, of add both


@dataclass(frozen=True, slots=True)
class Residual:
    """The names of parameters: ``writers`` are rotated in their rows (vectors in their last
    dimension), ``readers`` in their columns after these were multiplied with the norm that they are
    mapped to, if any, and ``norms`` become ones. Or ``obstacle`` says in words what is in the way.
    ``width`` is that of the stream."""

    width: int = 0
    writers: tuple[str, ...] = ()
    readers: tuple[tuple[str, str | None], ...] = ()
    norms: tuple[str, ...] = ()
    obstacle: str | None = None


class _ObstacleError(Exception):
    """Carries the obstacle."""


def find_residual(plan: Plan) -> Residual:
    """Return what the rotation of the residual stream changes; ``plan`` as for `find_folds`."""
    try:
        return _Stream(plan).residual()
    except _ObstacleError as exc:
        return Residual(obstacle=str(exc))


class _Stream:
    def __init__(self, plan: Plan) -> None:
        self._plan, self._method = plan, plan.language_model
        self._maker: dict[int, Instruction] = {}
        self._readers: dict[int, list[Instruction]] = {}
        for op in self._method.instructions:
            self._maker |= dict.fromkeys(op.outputs, op)
            for value in op.inputs:
                self._readers.setdefault(value, []).append(op)
        self._uses = Counter(
            index
            for method in plan.methods.values()
            for op in method.instructions
            for index in op.weights
        )

    def residual(self) -> Residual:
        others = [name for name in self._plan.methods if name != self._method.signature]
        if others:
            raise _ObstacleError(f"the method `{others[0]}`, which goes on from hidden states")
        tables = [op for op in self._method.instructions if op.op == "embedding"]
        if not tables:
            raise _ObstacleError("that there is no embedding")
        (start,) = tables[0].outputs
        values = self._values(start)
        writers: list[str] = []
        readers: list[tuple[str, str | None]] = []
        norms: list[str] = []
        for op in self._method.instructions:
            reads, writes = op.inputs[0] in values, op.outputs[0] in values
            if op.op == "embedding" and writes:
                readers.append((self._name(op, 0), None))
            elif op.op == "linear":
                if reads:
                    readers.append((self._name(op, 0), self._norm(op.inputs[0])))
                if writes:
                    writers += self._names(op, 0, 1)
            elif op.op == "experts":
                if reads:
                    norm = self._norm(op.inputs[0])
                    readers += [(self._name(op, place), norm) for place in (0, 1)]
                if writes:
                    writers += self._names(op, 2, 5)
            elif op.op == "rms_norm" and writes and op.weights:
                self._check_readers(op)
                norms.append(self._name(op, 0))
        width = self._method.values[start].width
        return Residual(width, tuple(writers), tuple(readers), tuple(norms))

    def _values(self, start: int) -> set[int]:
        """Return the values that are rotated."""
        values, pending = set[int](), [start]
        while pending:
            value = pending.pop()
            if value in values:
                continue
            values.add(value)
            if value in self._method.outputs:
                raise _ObstacleError("that hidden states are what the model gives")
            for op in (self._maker[value], *self._readers.get(value, ())):
                pending += self._alike(op, value)
        return values

    def _alike(self, op: Instruction, value: int) -> tuple[int, ...]:
        """Return the values that an instruction makes or reads which are rotated if ``value``
        is."""
        written = value in op.outputs
        if op.op in ("linear", "embedding") or (
            op.op == "experts" and (written or value != op.inputs[1])
        ):
            return ()
        whole = op.op == "rms_norm" and op.attributes["size"] == self._method.values[value].width
        if whole or op.op in _ALIKE:
            inputs = op.inputs if op.op == "add" else op.inputs[:1]
            if written or value in inputs:
                return (*inputs, *op.outputs)
        raise _ObstacleError(f"{self._called(op)}, which treats columns apart")

    def _norm(self, value: int) -> str | None:
        """Return the weight of the norm that a value comes from."""
        maker = self._maker[value]
        if maker.op == "select_rows":
            return self._norm(maker.inputs[0])
        return self._name(maker, 0) if maker.op == "rms_norm" and maker.weights else None

    def _check_readers(self, norm: Instruction) -> None:
        """Check that the weight of a norm can go into what reads it."""
        pending = [*norm.outputs]
        while pending:
            for op in self._readers.get(pending.pop(), ()):
                if op.op == "select_rows":
                    pending += op.outputs
                elif op.op not in ("linear", "experts"):
                    raise _ObstacleError(
                        f"the norm {self._name(norm, 0)}, whose output is no matrix' input but "
                        f"goes into {self._called(op)}"
                    )

    def _names(self, op: Instruction, *places: int) -> list[str]:
        return [
            self._name(op, place)
            for place in places
            if place < len(op.weights) and op.weights[place] >= 0
        ]

    def _name(self, op: Instruction, place: int) -> str:
        index = op.weights[place]
        name = self._plan.weights[index].name
        if self._uses[index] > 1:
            raise _ObstacleError(f"{name}, which serves twice")
        return name

    def _called(self, op: Instruction) -> str:
        names = [self._plan.weights[index].name for index in op.weights if index >= 0]
        return f"{op.op} ({names[0] if names else op.source})"
