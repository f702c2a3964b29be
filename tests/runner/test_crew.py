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

    def step(self, workers: int, tokens: int = 1) -> tuple[float, float]:
        """Return the seconds of a step, and those in which its first worker computed."""
        alone = STEP * (1 + 0.1 * (tokens - 1)) / workers * (1 + 0.05 * workers)
        seconds, over = alone, max(0, workers - (self.cores - self.busy))
        if over:
            seconds *= 1 + self.busy / self.cores
            slices = max(1, round(alone / STEP))
            seconds += over * sum(self._random.choice((0, 0, 4e-3, 8e-3)) for _ in range(slices))
        return seconds * self._random.uniform(1, 1.05), alone * self._random.uniform(0.9, 1)

    def run(self, crew: Crew, seconds: float, tokens: tuple[int, ...] = (1,)) -> float:
        """Run steps for so long; return how many there are in a second."""
        passed, steps = 0.0, 0
        while passed < seconds:
            count = tokens[steps % len(tokens)]
            step, computed = self.step(crew.workers(count), count)
            crew.record(count, step, computed)
            passed, steps = passed + step, steps + 1
        return steps / passed

    def rate(self, workers: int, tokens: int = 1) -> float:
        return 2000 / sum(self.step(workers, tokens)[0] for _ in range(2000))


SIZES = pytest.mark.parametrize("tokens", [1, 8, SMALL_TOKENS + 1, 256])


@SIZES
@pytest.mark.parametrize("cores", [2, 4, 8])
def test_all_workers_where_nothing_else_runs(cores: int, tokens: int) -> None:
    crew, machine = Crew(cores), Machine(cores)
    used = Counter[int]()
    for _ in range(2000):
        used[crew.workers(tokens)] += 1
        crew.record(tokens, *machine.step(crew.workers(tokens), tokens))
    assert used == {cores: 2000}


@SIZES
@pytest.mark.parametrize("at_first", [False, True])
@pytest.mark.parametrize("cores", [2, 4, 8, 12, 16])
@pytest.mark.parametrize("busy", [1, 2, 3])
def test_as_fast_as_the_best_number_on_a_busy_machine(
    cores: int, busy: int, at_first: bool, tokens: int
) -> None:
    crew, machine = Crew(cores), Machine(cores)
    if not at_first:
        machine.run(crew, 2, (tokens,))
    machine.busy = busy
    machine.run(crew, 4, (tokens,))
    rate = machine.run(crew, 40, (tokens,))
    assert rate > 0.95 * machine.rate(1, tokens)
    assert rate > 0.8 * max(machine.rate(count, tokens) for count in range(1, cores + 1))


@SIZES
@pytest.mark.parametrize("cores", [2, 4, 8, 12, 16])
def test_all_come_back_when_the_others_have_gone(cores: int, tokens: int) -> None:
    crew, machine = Crew(cores), Machine(cores)
    machine.run(crew, 1, (tokens,))
    machine.busy = 2
    machine.run(crew, 20, (tokens,))
    machine.busy = 0
    machine.run(crew, 20, (tokens,))
    assert crew.workers(tokens) == cores
    assert machine.run(crew, 10, (tokens,)) > 0.99 * machine.rate(cores, tokens)


@pytest.mark.parametrize("cores", [2, 4, 8, 16])
def test_a_trial_holds_nobody_up_for_long(cores: int) -> None:
    crew, machine = Crew(cores), Machine(cores)
    machine.busy = 1
    before = cores
    for _ in range(2000):
        now = crew.workers(256)
        assert now >= before // 2
        crew.record(256, *machine.step(now, 256))
        before = now


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


def test_prompts_and_answers_have_numbers_of_their_own() -> None:
    crew, machine = Crew(2), Machine(2)
    machine.busy = 1
    machine.run(crew, 10)
    used = Counter[tuple[int, int]]()
    for _ in range(500):
        used[crew.workers(1), crew.workers(SMALL_TOKENS + 1)] += 1
        crew.record(1, *machine.step(crew.workers(1)))
    assert used[1, 2] > 400
    assert {prompts for _, prompts in used} == {2}


def test_prompts_of_any_length_are_compared_with_their_like() -> None:
    crew, machine = Crew(2), Machine(2)
    machine.busy = 1
    sizes = (64, 71, 69, 20, 66, 72, 35)  # the last step of a prompt has what is left
    machine.run(crew, 10, sizes)
    one = Machine(2).run(Crew(1), 20, sizes)
    assert machine.run(crew, 40, sizes) > 0.95 * one


def test_a_size_that_is_met_in_a_trial_first_is_computed_as_usual() -> None:
    """Steps of a size whose usual time is not known cannot be compared with it, and learn it."""
    crew, machine = Crew(2), Machine(2)
    machine.busy = 1
    machine.run(crew, 10, (200, 220))
    for _ in range(1000):  # more than it takes until a trial is on
        if crew.workers(200) == 2:
            break
        crew.record(200, *machine.step(1, 200))
    assert crew.workers(97) == 1
    crew.record(97, *machine.step(1, 97))
    assert crew.workers(97) == crew.workers(200) == 2  # the trial goes on


def test_a_trial_that_begins_well_is_not_taken_for_speed() -> None:
    """A worker that has slept has turns of the system's scheduler saved up: for the first tenths
    of a second two workers beside two loops are faster than one, and slower from then on."""
    chance, crew = random.Random(7), Crew(2)
    used, rested = Counter[int](), 0.0
    for _ in range(10_000):
        workers = crew.workers(1)
        used[workers] += 1
        seconds = 4.2e-3 * chance.uniform(0.9, 1.1)
        if workers == 2:
            seconds *= 0.85 if rested > 0 else 1.12
        rested = max(0.0, min(0.15, rested + (seconds if workers == 1 else -seconds)))
        crew.record(1, seconds, 1.9e-3)
    assert used[2] < 0.1 * used[1]


def test_one_worker_is_one() -> None:
    crew = Crew(1)
    for _ in range(1000):
        crew.record(1, random.random(), 0.0)
        assert crew.workers(1) == 1
