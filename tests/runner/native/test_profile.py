"""Profiles of steps: the core's records on the toy transformer, and what is made of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits
from numpy.typing import NDArray
from toy_transformer import TOKENS, Toy

from edge_llm import native
from edge_llm.errors import NativeError
from edge_llm.program.cost import instruction_cost
from edge_llm.runner.evaluation.profile import Phase, Run, StepTimes, summarize, trace_events

Float32 = NDArray[np.float32]


def profiled(start: Any, *, threads: int, rows: list[int] | None = None) -> tuple[Any, StepTimes]:
    executor = start(threads=threads)
    executor.executor.start_profile(1)
    executor.step({0: TOKENS}, rows=rows)
    return executor, executor.executor.profiled_step(0)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_profiling_does_not_change_a_bit(start: Any, expected: Float32, threads: int) -> None:
    runner = start(threads=threads)
    runner.executor.start_profile(4)
    assert_same_bits(runner.logits(TOKENS), expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_stamps_ascend_within_the_step(start: Any, threads: int) -> None:
    runner, step = profiled(start, threads=threads)
    phases = runner.executor.phases(wanted=True)
    assert (step.tokens, step.rows) == (len(TOKENS), len(TOKENS))
    assert step.stamps.shape == (threads, len(phases), 2)
    for stamps in step.stamps.reshape(threads, -1):
        assert step.begin <= stamps[0]
        assert (np.diff(stamps) >= 0).all()
        assert stamps[-1] <= step.end
    for index, phase in enumerate(phases):
        if phase.barrier:  # nobody begins before all have ended what came before
            assert step.stamps[:, index, 0].min() >= step.stamps[:, index - 1, 1].max()


def test_phases_name_every_instruction_that_has_work(toy: Toy, start: Any) -> None:
    executor = start().executor
    phases = executor.phases(wanted=True)
    counts = Counter(number for phase in phases for number in phase.instructions)
    ops = [instruction.op for instruction in toy.plan.instructions]
    assert {ops[number] for number in set(range(len(ops))) - set(counts)} <= {"split"}  # views
    for number, count in counts.items():
        assert count <= (2 if ops[number] in ("attention", "linear") else 1)
    assert phases[-1] == Phase("sample", True, ())
    layers = ops.count("attention")
    attention = {number for number, op in enumerate(ops) if op == "attention"}
    work = [phase.work for phase in phases if attention & set(phase.instructions)]
    assert work == ["write", "attend"] * layers
    bare = executor.phases(wanted=False)
    assert bare == phases[: len(bare)]
    assert "select_rows" not in {ops[number] for phase in bare for number in phase.instructions}


def test_steps_without_rows_have_their_own_phases(start: Any) -> None:
    runner, step = profiled(start, threads=2, rows=[])
    assert step.stamps.shape[1] == len(runner.executor.phases(wanted=False))


def test_only_so_many_steps_are_recorded(start: Any) -> None:
    runner = start()
    with pytest.raises(NativeError, match="no profile"):
        runner.executor.profiled_step(0)
    runner.executor.start_profile(2)
    for count in range(3):
        runner.step({0: TOKENS[count : count + 1 + count]})
    assert [runner.executor.profiled_step(n).tokens for n in range(2)] == [1, 2]
    for number in (2, -1):
        with pytest.raises(NativeError, match="which has 2"):
            runner.executor.profiled_step(number)
    runner.executor.start_profile(1)
    with pytest.raises(NativeError, match="which has 0"):
        runner.executor.profiled_step(0)
    runner.executor.start_profile(0)
    with pytest.raises(NativeError, match="no profile"):
        runner.executor.profiled_step(0)
    with pytest.raises(NativeError, match="a profile of -1 steps"):
        runner.executor.start_profile(-1)


def test_times_add_up_and_costs_count_once(toy: Toy, start: Any) -> None:
    runner, step = profiled(start, threads=2)
    phases = runner.executor.phases(wanted=True)
    profile = summarize(toy.plan, [Run((step,), (0,))], lambda _: phases, "f16")
    assert profile.seconds == pytest.approx(1e-9 * (step.end - step.begin))
    for rows in (profile.rows, profile.by_operator(), profile.by_layer()):
        parts = sum(row.seconds + row.waited for row in rows)
        assert parts + profile.edges == pytest.approx(profile.seconds)
        assert sum(row.phases for row in rows) == len(phases)
    costs = [
        instruction_cost(
            toy.plan, instruction, tokens=len(TOKENS), kv_dtype="f16", rows=len(TOKENS)
        )
        for instruction in toy.plan.instructions
    ]
    assert sum(row.bytes for row in profile.rows) == sum(cost.bytes for cost in costs)
    assert sum(row.operations for row in profile.rows) == sum(cost.operations for cost in costs)
    operators = {row.operator: row for row in profile.by_operator()}
    attention = [
        cost.operations
        for cost, instruction in zip(costs, toy.plan.instructions, strict=True)
        if instruction.op == "attention"
    ]
    assert operators["rope+attention attend"].operations >= sum(attention) > 0
    assert operators["rope+attention write"].operations < sum(attention)


def times(durations: list[int], *, gap: int) -> StepTimes:
    """A step of one worker: phases of these durations, ``gap`` before, between and after them."""
    stamps, now = [], 1000
    for duration in durations:
        now += gap
        stamps.append((now, now + duration))
        now += duration
    return StepTimes(1, 1, 1000, now + gap, np.array([stamps], np.int64))


def test_the_fastest_runs_count(toy: Toy) -> None:
    phases = [Phase("", False, (0,)), Phase("x", True, (1,)), Phase("sample", True, ())]
    slow = [Run((times([100, 200, 300], gap=50),), (0,)) for _ in range(19)]
    fast = Run((times([10, 20, 30], gap=5),), (0,))
    profile = summarize(toy.plan, [*slow[:7], fast, *slow[7:]], lambda _: phases, "f16")
    assert profile.runs == 2  # a tenth of 20: the fast one and a slow one
    assert profile.seconds == pytest.approx(1e-9 * (80 + 800) / 2)
    assert [1e9 * row.seconds for row in profile.rows] == pytest.approx([55, 110, 165])
    assert profile.edges == pytest.approx(1e-9 * (10 + 100) / 2)
    assert profile.waited == pytest.approx(1e-9 * (10 + 100) / 2)
    alone = summarize(toy.plan, [fast, slow[0]], lambda _: phases, "f16")
    assert alone.runs == 1
    assert alone.typical is fast


def test_chunks_of_a_prefill_are_one_run(toy: Toy) -> None:
    phases = [Phase("", False, (0,)), Phase("sample", True, ())]
    bare = replace(times([10], gap=0), tokens=4, rows=0)
    last = replace(times([30, 5], gap=0), tokens=3)
    profile = summarize(
        toy.plan,
        [Run((bare, last), (0, 4))],
        lambda step: phases if step.rows else phases[:1],
        "f16",
    )
    assert profile.tokens == 7
    assert 1e9 * profile.seconds == pytest.approx(45)
    embedding = profile.by_operator()[0]
    assert embedding.phases == 2
    expected = sum(
        instruction_cost(toy.plan, toy.plan.instructions[0], tokens=count, kv_dtype="f16").bytes
        for count in (4, 3)
    )
    assert embedding.bytes == expected


def test_trace_events_cover_each_worker(toy: Toy, start: Any) -> None:
    runner, step = profiled(start, threads=2)
    phases = runner.executor.phases(wanted=True)
    run = Run((step,), (0,))
    events = trace_events(toy.plan, run, lambda _: phases, "f16", process=3, name="toy")
    assert {event["pid"] for event in events} == {3}
    assert [e["args"]["name"] for e in events if e["ph"] == "M"] == ["toy", "worker 0", "worker 1"]
    for worker in range(2):
        spans = [e for e in events if e["ph"] == "X" and e["tid"] == worker]
        assert len([e for e in spans if e["cat"] == "phase"]) == len(phases)
        ends = [e["ts"] + e["dur"] for e in spans]
        assert all(b["ts"] >= end - 1e-6 for b, end in zip(spans[1:], ends, strict=False))
        assert ends[-1] == pytest.approx((step.end - step.begin) / 1000)


@pytest.mark.parametrize("isa", ["scalar", None])
def test_ceilings(monkeypatch: pytest.MonkeyPatch, isa: str | None) -> None:
    if isa is not None:
        monkeypatch.setenv("EDGE_LLM_ISA", isa)
    ceilings = native.ceilings(2)
    assert (ceilings.threads, ceilings.isa) == (2, native.isa())
    assert ceilings.bytes_per_second > 0
    assert ceilings.operations_per_second > 0


def test_ceilings_of_no_threads() -> None:
    with pytest.raises(NativeError, match="threads is -1"):
        native.ceilings(-1)
