"""Putting a plan together: weights and values get their numbers as they are first used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge_llm.program.plan import (
    INPUTS,
    Attribute,
    Instruction,
    Plan,
    Rows,
    State,
    Value,
    Weight,
    matrix,
)


class PlanBuilder:
    """Collects the pieces of a plan; values are numbered in the order in which they are made."""

    def __init__(self) -> None:
        self.values: list[Value] = [*INPUTS]
        self._weights: dict[str, tuple[int, Weight]] = {}
        self._states: dict[str, tuple[int, State]] = {}
        self._instructions: list[Instruction] = []

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
        self._instructions.append(
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

    def finish(self, *, context: int, vocab: int, output: int) -> Plan:
        """Return the plan so far."""
        return Plan.causal_lm(
            context=context,
            vocab=vocab,
            values=tuple(self.values),
            weights=tuple(weight for _, weight in self._weights.values()),
            states=tuple(state for _, state in self._states.values()),
            instructions=tuple(self._instructions),
            output=output,
        )
