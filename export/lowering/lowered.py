"""A plan on its way to a file: the plan, and which tensors of the model fill its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Lowered:
    """``parts`` maps the name of each of the file's tensors to the parameters or buffers of the
    model that it holds, joined along N in this order."""

    plan: Plan
    parts: Mapping[str, tuple[str, ...]]


class PlanBuilder:
    """Collects the pieces of a plan; values are numbered in the order in which they are made."""

    def __init__(self) -> None:
        self.values: list[Value] = [*INPUTS]
        self.parts: dict[str, tuple[str, ...]] = {}
        self._weights: dict[str, tuple[int, Weight]] = {}
        self._states: list[State] = []
        self._instructions: list[Instruction] = []

    def weight(self, weight: Weight, parts: tuple[str, ...]) -> int:
        """The index of ``weight``, added at its first use."""
        index, _ = self._weights.setdefault(weight.name, (len(self._weights), weight))
        self.parts[weight.tensor] = parts
        return index

    def state(self, state: State) -> int:
        """The index of a new state."""
        self._states.append(state)
        return len(self._states) - 1

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
        """Adds an instruction with one new float value per entry of ``widths``; their numbers."""
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

    def finish(self, *, context: int, vocab: int, output: int) -> Lowered:
        """The plan so far."""
        plan = Plan.causal_lm(
            context=context,
            vocab=vocab,
            values=tuple(self.values),
            weights=tuple(weight for _, weight in self._weights.values()),
            states=tuple(self._states),
            instructions=tuple(self._instructions),
            output=output,
        )
        return Lowered(plan, dict(self.parts))
