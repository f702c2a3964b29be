"""Power is saved where that was asked for, or is called for; no bit depends on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from prompts import prompt

import edge_llm
from edge_llm.errors import ConfigError
from edge_llm.runner.config import RunnerConfig
from edge_llm.runner.engine.power import Power, is_cooled, on_battery, throttle_count


class System:
    """A folder like /sys, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 100.0

    def write(self, **files: str) -> None:
        for name, text in files.items():
            file = self.folder / name.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text + "\n")

    def supply(self, name: str, **files: str) -> None:
        self.write(**{f"class__power_supply__{name}__{key}": text for key, text in files.items()})

    def throttled(self, count: int) -> None:
        self.write(devices__system__cpu__cpu0__thermal_throttle__core_throttle_count=str(count))

    def power(self) -> Power:
        return Power("auto", system=self.folder, clock=lambda: self.now)


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


def test_a_system_that_tells_nothing_is_not_spared(system: System) -> None:
    assert not on_battery(system.folder)
    assert not is_cooled(system.folder)
    assert throttle_count(system.folder) == 0
    assert not system.power().saving
    assert not Power("full").saving
    assert Power("saver").saving


def test_on_battery(system: System) -> None:
    power = system.power()
    system.supply("BAT0", type="Battery", status="Discharging")
    system.supply("AC", type="Mains", online="0")
    assert power.saving
    system.supply("AC", type="Mains", online="1")
    assert power.saving  # it does not look at every step
    system.now += 10
    assert not power.saving
    system.supply("AC", type="Mains", online="0")
    system.supply("BAT0", type="Battery", status="Full")
    system.now += 10
    assert not power.saving


def test_the_battery_of_a_mouse_is_none(system: System) -> None:
    system.supply("hid", type="Battery", status="Discharging", scope="Device")
    assert not on_battery(system.folder)
    system.supply("usb", type="USB", online="1")
    system.supply("BAT0", type="Battery", status="Discharging")
    assert not on_battery(system.folder)


def test_a_hot_processor_is_spared_for_a_while(system: System) -> None:
    system.throttled(7)
    power = system.power()
    assert not power.saving  # that was before
    system.throttled(8)
    system.now += 10
    assert power.saving
    system.now += 30
    assert power.saving
    system.now += 60
    assert not power.saving
    system.write(class__thermal__cooling_device3__type="Processor")
    system.write(class__thermal__cooling_device3__cur_state="0")
    system.now += 10
    assert not power.saving
    system.write(class__thermal__cooling_device3__cur_state="2")
    system.now += 10
    assert power.saving


def test_files_that_are_damaged_tell_nothing(system: System) -> None:
    system.write(devices__system__cpu__cpu0__thermal_throttle__core_throttle_count="many")
    (system.folder / "class/power_supply/BAT0/type").mkdir(parents=True)
    assert not system.power().saving


def test_steps_have_half_of_the_threads(bench) -> None:
    saving = bench(threads=4, power=Power("saver"))
    full = bench(threads=4)
    listeners = [one.submit(prompt(1, 40), 20)[0] for one in (saving, full)]
    saving.run()
    full.run()
    assert {(b.workers, b.patient) for b in saving.executor.batches} == {(2, True)}
    assert {b.patient for b in full.executor.batches} == {False}
    assert listeners[0].ids == listeners[1].ids
    one = bench(threads=1, power=Power("saver"))
    one.submit(prompt(1, 9), 2)
    one.run()
    assert {b.workers for b in one.executor.batches} == {1}


def test_the_choice_is_checked(tiny_program: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="power is 'low', expected one of: full, saver, auto"):
        RunnerConfig(power="low")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="power is saver, which the backend torch cannot obey"):
        edge_llm.load(tiny_program(), backend="torch", power="saver")


@pytest.mark.parametrize(("threads", "draft"), [(2, False), (4, True)])
def test_no_bit_depends_on_it(tiny_program: Callable[..., Path], threads: int, draft: bool) -> None:
    path = tiny_program("8da4w")
    text = "The quick brown fox " * 10
    answers = []
    for power in ("full", "saver"):
        with edge_llm.load(
            path, threads=threads, power=power, draft=path if draft else False
        ) as llm:
            answer = llm.generate(text, max_tokens=40, temperature=0, top_logprobs=2)
            # One step of so many rows that two workers share them, and one takes them all.
            logits = llm.logits(range(200), chunk=200)
            answers.append((answer.token_ids, answer.logprobs, logits.tobytes()))
    assert answers[0] == answers[1]
    assert replace(RunnerConfig(), power="auto").power == "auto"
