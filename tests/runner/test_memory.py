from __future__ import annotations

import pytest

from edge_llm.errors import CapacityError
from edge_llm.runner import memory
from edge_llm.runner.config import RunnerConfig


@pytest.fixture
def megabyte_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "machine_memory", lambda: 1_000_000)


def test_the_memory_of_this_machine_is_known() -> None:
    assert memory.machine_memory() > 2**26


@pytest.mark.usefixtures("megabyte_machine")
@pytest.mark.parametrize(
    ("sequences", "budget", "page_bytes", "expected"),
    [
        (8, None, 100, 8 * 8),  # half-full contexts of 16 pages
        (1, None, 100, 16),  # never less than one context
        (8, None, 10_000, 25),  # a quarter of the machine
        (8, 1_000, 100, 10),
        (2, 10_000_000, 100, 32),  # more than all sequences can fill is of no use
    ],
)
def test_page_count(sequences: int, budget: int | None, page_bytes: int, expected: int) -> None:
    config = RunnerConfig(max_sequences=sequences, kv_budget=budget)
    assert memory.page_count(config, 1000, 64, page_bytes) == expected


@pytest.mark.usefixtures("megabyte_machine")
def test_a_budget_below_one_page_is_refused() -> None:
    with pytest.raises(CapacityError, match="99 bytes"):
        memory.page_count(RunnerConfig(kv_budget=99), 1000, 64, 100)
