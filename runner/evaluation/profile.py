"""Where the time of a step goes: recorded phases, summed up by operator and by layer.

The core notes when each worker begins and ends each phase. A phase's time is the mean of its
workers' times; what a worker waits before its next phase is counted apart, as the wait after this
one. So times, waits, and what lies before the first and after the last phase add up to the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_llm.program.cost import Cost, instruction_cost
from edge_llm.program.plan import Plan, layer_of


@dataclass(frozen=True, slots=True)
class Phase:
    """The workers' task between two moments of a step: part ``work`` ("": all) of the
    ``instructions`` (numbers in the plan; none for sampling). ``barrier``: they wait for each
    other first."""

    work: str
    barrier: bool
    instructions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StepTimes:
    """One recorded step of ``tokens`` tokens and ``rows`` wanted rows. Nanoseconds of one clock:
    ``begin``, ``end``, and ``stamps`` [workers, phases, 2], where each phase began and ended."""

    tokens: int
    rows: int
    begin: int
    end: int
    stamps: NDArray[np.int64]

    @property
    def nanoseconds(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Row:
    """One operator (or part of one) in one layer, or several of them summed up: seconds of its
    phases, seconds of waiting after them, bytes and operations (program.cost)."""

    operator: str
    layer: int | None  # None: outside of layers, or in several
    phases: int
    seconds: float
    waited: float
    bytes: int
    operations: int

    def __add__(self, other: Row) -> Row:
        return replace(
            self,
            layer=self.layer if self.layer == other.layer else None,
            phases=self.phases + other.phases,
            seconds=self.seconds + other.seconds,
            waited=self.waited + other.waited,
            bytes=self.bytes + other.bytes,
            operations=self.operations + other.operations,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """Steps that belong together: one of a decode, the chunks of a prefill. ``depths`` are the
    tokens that were in the cache before each."""

    steps: tuple[StepTimes, ...]
    depths: tuple[int, ...]

    @property
    def nanoseconds(self) -> int:
        return sum(step.nanoseconds for step in self.steps)


@dataclass(frozen=True, slots=True)
class Profile:
    """The mean of ``runs`` equal runs: ``seconds`` = the rows' times and waits + ``edges``, which
    is what passes before a worker's first and after its last phase. ``rows`` are in the order of
    execution. ``typical`` is the run whose duration is nearest to the mean."""

    tokens: int
    depth: int
    threads: int
    runs: int
    seconds: float
    edges: float
    rows: tuple[Row, ...]
    typical: Run

    @property
    def waited(self) -> float:
        """Return the seconds of waiting at barriers, all rows together."""
        return sum(row.waited for row in self.rows)

    def by_operator(self) -> list[Row]:
        """One row an operator, the costliest first."""
        return sorted(_summed(self.rows, lambda row: row.operator), key=lambda row: -row.seconds)

    def by_layer(self) -> list[Row]:
        """One row a layer (``operator`` is its name), in order; what stands outside of layers is
        one row."""
        named = [
            replace(row, operator="outside" if row.layer is None else f"layer {row.layer}")
            for row in self.rows
        ]
        return _summed(named, lambda row: row.operator)


PhasesOf = Callable[[StepTimes], Sequence[Phase]]


def summarize(plan: Plan, runs: Sequence[Run], phases_of: PhasesOf, kv_dtype: str) -> Profile:
    """Return the mean of the fastest tenth of equal runs, at least one: what disturbs a run makes
    it slower, never faster.

    ``phases_of(step)`` are the phases whose stamps the step has; ``kv_dtype`` is the cache's."""
    kept = sorted(runs, key=lambda run: run.nanoseconds)[: -(-len(runs) // 10)]
    scale = 1e-9 / len(kept)
    rows: list[Row] = []
    edges = 0.0
    for number, depth in enumerate(kept[0].depths):
        steps = [run.steps[number] for run in kept]
        first = steps[0]
        phases = phases_of(first)[: first.stamps.shape[1]]
        times, waits = np.zeros(len(phases)), np.zeros(len(phases))
        for step in steps:
            begins, ends = step.stamps[:, :, 0], step.stamps[:, :, 1]
            times += (ends - begins).mean(axis=0)
            waits[:-1] += (begins[:, 1:] - ends[:, :-1]).mean(axis=0)
            edges += float((begins[:, 0] - step.begin).mean() + (step.end - ends[:, -1]).mean())
        costs = phase_costs(plan, phases, first, depth, kv_dtype)
        for phase, time, wait, cost in zip(phases, times, waits, costs, strict=True):
            name, layer = describe(plan, phase)
            rows.append(
                Row(name, layer, 1, time * scale, wait * scale, cost.bytes, cost.operations)
            )
    mean = sum(run.nanoseconds for run in kept) / len(kept)
    return Profile(
        tokens=sum(step.tokens for step in kept[0].steps),
        depth=kept[0].depths[0],
        threads=len(kept[0].steps[0].stamps),
        runs=len(kept),
        seconds=mean * 1e-9,
        edges=edges * scale,
        rows=tuple(_summed(rows, lambda row: (row.operator, row.layer))),
        typical=min(kept, key=lambda run: abs(run.nanoseconds - mean)),
    )


def phase_costs(
    plan: Plan, phases: Sequence[Phase], step: StepTimes, depth: int, kv_dtype: str
) -> list[Cost]:
    """Bytes and operations of each phase. An instruction that takes several phases counts in its
    last one: the one that multiplies, or attends."""
    last = {number: index for index, phase in enumerate(phases) for number in phase.instructions}
    costs = []
    for index, phase in enumerate(phases):
        size = operations = 0
        for number in phase.instructions:
            if last[number] == index:
                cost = instruction_cost(
                    plan,
                    plan.instructions[number],
                    tokens=step.tokens,
                    kv_dtype=kv_dtype,
                    depth=depth,
                    rows=step.rows,
                )
                size += cost.bytes
                operations += cost.operations
        costs.append(Cost(size, operations))
    return costs


def describe(plan: Plan, phase: Phase) -> tuple[str, int | None]:
    """Return a phase's name, such as "linear quantize", and its layer."""
    instructions = [plan.instructions[number] for number in phase.instructions]
    names = "+".join(instruction.op for instruction in instructions)
    layer = layer_of(plan, instructions[0]) if instructions else None
    return f"{names} {phase.work}".strip(), layer


def _summed(rows: Sequence[Row], key: Callable[[Row], Any]) -> list[Row]:
    sums: dict[Any, Row] = {}
    for row in rows:
        name = key(row)
        sums[name] = sums[name] + row if name in sums else row
    return list(sums.values())


def trace_events(
    plan: Plan,
    run: Run,
    phases_of: PhasesOf,
    kv_dtype: str,
    *,
    process: int,
    name: str,
    start: float = 0.0,
) -> list[dict[str, Any]]:
    """Return a run in the Trace Event Format (chrome://tracing, Perfetto): one row a worker, under
    process number ``process`` called ``name``; it begins at ``start`` microseconds."""
    origin = run.steps[0].begin

    def event(kind: str, title: str, worker: int, begin: int, end: int) -> dict[str, Any]:
        return {
            "name": title,
            "cat": kind,
            "ph": "X",
            "pid": process,
            "tid": worker,
            "ts": start + (begin - origin) / 1000,
            "dur": (end - begin) / 1000,
        }

    events = [_named("process_name", process, 0, name)]
    for worker in range(len(run.steps[0].stamps)):
        events.append(_named("thread_name", process, worker, f"worker {worker}"))
    for step, depth in zip(run.steps, run.depths, strict=True):
        phases = phases_of(step)[: step.stamps.shape[1]]
        costs = phase_costs(plan, phases, step, depth, kv_dtype)
        for worker, stamps in enumerate(step.stamps.tolist()):
            before = step.begin
            for phase, cost, (begin, end) in zip(phases, costs, stamps, strict=True):
                operator, layer = describe(plan, phase)
                if phase.barrier:
                    events.append(event("wait", "wait", worker, before, begin))
                details = {
                    "layer": layer,
                    "instructions": list(phase.instructions),
                    "bytes": cost.bytes,
                    "operations": cost.operations,
                }
                events.append(event("phase", operator, worker, begin, end) | {"args": details})
                before = end
            events.append(event("wait", "wait", worker, before, step.end))
    return events


def _named(what: str, process: int, worker: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": process, "tid": worker, "args": {"name": name}}
