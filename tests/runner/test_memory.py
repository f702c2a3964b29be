from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge_llm.errors import CapacityError
from edge_llm.runner.config import RunnerConfig
from edge_llm.runner.engine import memory
from edge_llm.runner.executor import StateGroup


@pytest.fixture
def megabyte_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "machine_memory", lambda: 1_000_000)


def test_the_memory_of_this_machine_is_known() -> None:
    assert memory.machine_memory() > 2**26


@pytest.mark.parametrize(
    ("version", "name"), [("", "memory.max"), ("memory", "memory.limit_in_bytes")]
)
@pytest.mark.parametrize("limited", ["", "system.slice", "system.slice/edge-llm.service"])
def test_limits_of_the_groups_around_this_process_count(
    version: str, name: str, limited: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "cgroup"
    controllers = f"4:{version}" if version else "0:"
    own.write_text(f"7:pids:/elsewhere\n{controllers}:/system.slice/edge-llm.service\n")
    root = tmp_path / "sys" / version
    group = root / "system.slice" / "edge-llm.service"
    group.mkdir(parents=True)
    for folder in (root, group.parent, group):
        (folder / name).write_text("max\n")
    (root / limited / name).write_text("1048576\n")
    monkeypatch.setattr(memory, "_OWN_CGROUPS", str(own))
    monkeypatch.setattr(memory, "_CGROUPS", {str(root): name})
    assert memory.machine_memory() == 2**20


def counts(config: RunnerConfig, *groups: StateGroup) -> tuple[int, ...]:
    return memory.block_counts(config, 1000, 64, groups)


@pytest.mark.usefixtures("megabyte_machine")
@pytest.mark.parametrize(
    ("sequences", "budget", "block_bytes", "expected"),
    [
        (8, None, 100, 8 * 8),  # half-full contexts of 16 blocks
        (1, None, 100, 16),  # never less than one context
        (8, None, 10_000, 25),  # a quarter of the machine
        (8, 1_000, 100, 10),
        (2, 10_000_000, 100, 32),  # more than all sequences can fill is of no use
    ],
)
def test_one_group(sequences: int, budget: int | None, block_bytes: int, expected: int) -> None:
    config = RunnerConfig(max_sequences=sequences, kv_budget=budget)
    assert counts(config, StateGroup(0, block_bytes)) == (expected,)


@pytest.mark.usefixtures("megabyte_machine")
def test_groups_share_one_budget() -> None:
    groups = StateGroup(0, 100), StateGroup(65, 300)  # the second holds 64 + 32 positions: 3 blocks
    small = RunnerConfig(max_sequences=4, step_tokens=32, kv_budget=3_400)
    assert counts(small, *groups) == (16, 6)  # half of what half-full contexts take
    assert counts(RunnerConfig(max_sequences=4, step_tokens=32), *groups) == (32, 12)
    large = RunnerConfig(max_sequences=4, step_tokens=32, kv_budget=10**6)
    assert counts(large, *groups) == (64, 12)
    between = RunnerConfig(max_sequences=4, step_tokens=32, kv_budget=8_600)
    assert counts(between, *groups) == (50, 12)  # what the window cannot use goes to the other
    assert counts(large) == ()


@pytest.mark.usefixtures("megabyte_machine")
def test_a_small_budget_holds_the_longest_sequence_that_it_can() -> None:
    # By what half-full contexts take it would be 11 and 8 blocks, and then 4 and 3.
    groups = StateGroup(0, 100), StateGroup(257, 100)
    config = RunnerConfig(max_sequences=8, step_tokens=64, kv_budget=1_950)
    assert counts(config, *groups) == (13, 6)
    tight = RunnerConfig(max_sequences=8, step_tokens=64, kv_budget=850)
    assert counts(tight, *groups) == (4, 4)


@pytest.mark.usefixtures("megabyte_machine")
@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (None, 256),  # a quarter of the machine has room for all
        (5 * 2_000 + 16 * 100, 256),
        (5 * 2_000 + 16 * 100 - 1, 128),  # then a step of three blocks and the one before
        (3 * 2_000 + 16 * 100 - 1, 64),
        (100, 64),
    ],
)
def test_steps_are_short_where_folds_are_large(budget: int | None, expected: int) -> None:
    """A step of 256 tokens holds five blocks of a fold, wherever it begins."""
    groups = (StateGroup(0, 100), StateGroup(2, 2_000))
    config = RunnerConfig(max_sequences=8, kv_budget=budget)
    fitted = memory.fitting_steps(config, 1000, 64, groups)
    assert fitted.step_tokens == expected
    assert replace(fitted, step_tokens=config.step_tokens) == config


@pytest.mark.usefixtures("megabyte_machine")
def test_a_step_has_a_token_of_each_sequence() -> None:
    config = RunnerConfig(max_sequences=100, kv_budget=100)
    assert memory.fitting_steps(config, 1000, 64, [StateGroup(2, 2_000)]).step_tokens == 100


@pytest.mark.usefixtures("megabyte_machine")
def test_a_sequence_holds_few_blocks_of_a_fold() -> None:
    config = RunnerConfig(max_sequences=2, kv_budget=10**6, step_tokens=64)
    assert counts(config, StateGroup(0, 100), StateGroup(2, 2_000)) == (32, 2 * 2)


@pytest.mark.usefixtures("megabyte_machine")
def test_a_budget_below_one_block_is_refused() -> None:
    with pytest.raises(CapacityError, match="99 bytes"):
        counts(RunnerConfig(kv_budget=99), StateGroup(0, 100))
    with pytest.raises(CapacityError, match="199 bytes, one block of 64 tokens takes 200"):
        counts(RunnerConfig(kv_budget=199), StateGroup(0, 100), StateGroup(64, 100))
