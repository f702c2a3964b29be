"""The number of workers follows what was measured. No clock runs here: the machine is simulated."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from edge_llm.runner.engine.crew import SMALL_TOKENS, Crew

STEP = 8e-3  # seconds of one worker


class Machine:
    """``cores``, of which others take ``busy``. A worker beyond the free ones has its time slices
    taken from it, and all wait for it."""

    def __init__(self, cores: int) -> None:
        self.cores = cores
        self.busy = 0
        self._random = random.Random(7)

    def seconds(self, workers: int, tokens: int = 1) -> float:
        step = STEP * (1 + 0.1 * (tokens - 1)) / workers * (1 + 0.05 * workers)
        over = max(0, workers - (self.cores - self.busy))
        if over:
            step *= 1 + self.busy / self.cores
            step += over * self._random.choice((0, 0, 4e-3, 8e-3))
        return step * self._random.uniform(1, 1.05)

    def run(self, crew: Crew, seconds: float, tokens: tuple[int, ...] = (1,)) -> float:
        """Run steps for so long; return how many there are in a second."""
        passed, steps = 0.0, 0
        while passed < seconds:
            count = tokens[steps % len(tokens)]
            step = self.seconds(crew.workers(count), count)
            crew.record(count, step)
            passed, steps = passed + step, steps + 1
        return steps / passed

    def rate(self, workers: int) -> float:
        return 2000 / sum(self.seconds(workers) for _ in range(2000))


@pytest.mark.parametrize("cores", [2, 4, 8])
def test_all_workers_where_nothing_else_runs(cores: int) -> None:
    crew, machine = Crew(cores), Machine(cores)
    used = Counter[int]()
    for _ in range(2000):
        used[crew.workers(1)] += 1
        crew.record(1, machine.seconds(crew.workers(1)))
    assert used == {cores: 2000}


@pytest.mark.parametrize("cores", [2, 4, 8])
@pytest.mark.parametrize("busy", [1, 2, 3])
def test_as_fast_as_the_best_number_on_a_busy_machine(cores: int, busy: int) -> None:
    crew, machine = Crew(cores), Machine(cores)
    machine.run(crew, 2)
    machine.busy = busy
    machine.run(crew, 2)
    rate = machine.run(crew, 20)
    assert rate > 0.95 * machine.rate(1)
    assert rate > 0.8 * max(machine.rate(count) for count in range(1, cores + 1))


def test_all_come_back_when_the_others_have_gone() -> None:
    crew, machine = Crew(2), Machine(2)
    machine.run(crew, 1)
    machine.busy = 1
    machine.run(crew, 20)
    machine.busy = 0
    machine.run(crew, 10)
    assert machine.run(crew, 10) > 0.99 * machine.rate(2)


def test_steps_of_several_sizes_are_compared_with_their_like() -> None:
    crew, machine = Crew(2), Machine(2)
    sizes = (1, 5, 1, 3)  # drafts are accepted now and then
    quiet = machine.run(crew, 5, sizes)
    assert crew.workers(1) == 2
    machine.busy = 1
    machine.run(crew, 5, sizes)
    one = Machine(2).run(Crew(1), 5, sizes)
    assert machine.run(crew, 10, sizes) > 0.93 * one
    assert quiet > one


def test_large_steps_have_all() -> None:
    crew, machine = Crew(2), Machine(2)
    machine.run(crew, 1)
    machine.busy = 1
    machine.run(crew, 10)
    assert crew.workers(SMALL_TOKENS + 1) == 2
    before = crew.workers(1)
    for _ in range(1000):
        crew.record(SMALL_TOKENS + 1, 1.0)
    assert crew.workers(1) == before


def test_one_worker_is_one() -> None:
    crew = Crew(1)
    for _ in range(1000):
        crew.record(1, random.random())
        assert crew.workers(1) == 1
