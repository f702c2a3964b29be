"""Weights in huge pages, and pages mapped ahead of the first step."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

from edge_llm.runner.backends import weights
from edge_llm.runner.engine.memory import available_memory, machine_memory


def some_weights() -> dict[str, np.ndarray[tuple[int], np.dtype[np.uint8]]]:
    rng = np.random.default_rng(0)
    return {f"w{n}": rng.integers(0, 256, n, dtype=np.uint8) for n in (1, 64, 4097, 300_000)}


@pytest.mark.skipif(sys.platform != "linux", reason="huge pages are Linux's")
def test_copies_hold_the_same_bytes_aligned() -> None:
    originals = some_weights()
    copies = weights.in_huge_pages(originals)
    assert list(copies) == list(originals)
    for name, data in originals.items():
        np.testing.assert_array_equal(copies[name], data)
        assert copies[name].ctypes.data % 64 == 0
        assert not np.shares_memory(copies[name], data)


def test_nothing_is_copied_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "available_memory", lambda: 1024)
    originals = some_weights()
    assert weights.in_huge_pages(originals) is originals


def test_no_weights_make_no_copy() -> None:
    assert weights.in_huge_pages({}) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="what is free is asked of Linux alone")
def test_available_memory_is_part_of_the_machine_s() -> None:
    free = available_memory()
    assert free is not None
    assert 0 < free <= machine_memory()


@pytest.mark.parametrize(("size", "most", "started"), [(1, 100, 0), (9, 100, 1), (9, 17, 0)])
@pytest.mark.skipif(sys.platform != "linux", reason="prefaults on Linux alone")
def test_prefault_leaves_small_and_too_large_weights(
    monkeypatch: pytest.MonkeyPatch, size: int, most: int, started: int
) -> None:
    mib = 1024 * 1024
    monkeypatch.setattr(weights, "machine_memory", lambda: most * mib)
    begun: list[object] = []
    monkeypatch.setattr(threading.Thread, "start", lambda thread: begun.append(thread))
    weights.prefault({"w": np.zeros(size * mib, np.uint8)})
    assert len(begun) == started
