"""Putting a plan together: weights and values get their numbers as they are first used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge_llm.program.plan import (
    INPUTS,
    Attribute,
    Instruction,
    Method,
    Plan,
    Rows,
    Signature,
    State,
    Value,
    Weight,
    matrix,
)


class PlanBuilder:
    """Collects the pieces of a plan; values are numbered in the order in which they are made.

    Methods are put together one after the other: `close` ends one of them."""

    def __init__(self) -> None:
        self.values: list[Value] = [*INPUTS]
        self._methods: dict[str, Method] = {}
        self._weights: dict[str, tuple[int, Weight]] = {}
        self._states: dict[str, tuple[int, State]] = {}
        self.instructions: list[Instruction] = []

    def weight(self, weight: Weight) -> int:
        """Return the index of ``weight``, which is added at its first use."""
        index, _ = self._weights.setdefault(weight.name, (len(self._weights), weight))
        return index

    def state(self, state: State) -> int:
        """Return the index of ``state``, which is added at its first use."""
        index, _ = self._states.setdefault(state.name, (len(self._states), state))
        return index

    def emit(
        self,
        op: str,
        inputs: Sequence[int],
        widths: Sequence[int],
        *,
        rows: Rows,
        weights: Sequence[int] = (),
        state: int = -1,
        attributes: Mapping[str, Attribute] | None = None,
        source: str = "",
    ) -> list[int]:
        """Add an instruction with one new float value for each of ``widths``, and return their
        numbers."""
        outputs = range(len(self.values), len(self.values) + len(widths))
        self.values += [matrix(rows, width) for width in widths]
        self.instructions.append(
            Instruction(
                op,
                tuple(inputs),
                tuple(outputs),
                tuple(weights),
                state,
                dict(attributes or {}),
                source,
            )
        )
        return list(outputs)

    def begin(self, hidden: int) -> None:
        """Begin a draft method, which has hidden states of so many columns as an input."""
        self.values.append(matrix("T", hidden))

    def close(self, signature: Signature, *outputs: int) -> None:
        """End a method, whose inputs are those values that no instruction computes."""
        made = {number for op in self.instructions for number in op.outputs}
        inputs = tuple(number for number in range(len(self.values)) if number not in made)
        self._methods[signature] = Method(
            signature, inputs, tuple(self.values), tuple(self.instructions), outputs
        )
        self.values, self.instructions = [*INPUTS], []

    def finish(self, *, context: int, vocab: int) -> Plan:
        """Return the plan of all methods that were closed."""
        return Plan(
            context,
            vocab,
            tuple(weight for _, weight in self._weights.values()),
            tuple(state for _, state in self._states.values()),
            dict(self._methods),
        )
