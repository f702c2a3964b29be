"""The thread pool that all models of the process share."""

from __future__ import annotations

import ctypes
import os
import platform
import threading
import time
import warnings
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits
from numpy.typing import NDArray
from toy_transformer import TOKENS

from edge_llm.runner.backends import native
from edge_llm.runner.executor import Batch, StepResult, Took

Float32 = NDArray[np.float32]


def test_models_share_the_pool(start: Any, expected: Float32) -> None:
    runners = [start(threads=2), start(threads=3), start(threads=2)]
    got: dict[int, Float32] = {}

    def run(index: int) -> None:
        chunks = [runners[index].logits([token]) for token in TOKENS]
        got[index] = np.concatenate(chunks)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(3):
        assert_same_bits(got[index], expected)


@pytest.fixture
def taken(start: Any) -> tuple[Any, list[Took | None]]:
    """A runner with two threads, and what its steps took."""
    runner = start(threads=2)
    taken: list[Took | None] = []
    step = runner.executor.step

    def noted(batch: Batch) -> StepResult:
        result: StepResult = step(batch)
        taken.append(result.took)
        return result

    runner.executor.step = noted
    return runner, taken


def test_losing_the_core_while_the_cpu_time_is_asked_for_is_a_part_of_what_a_step_takes(
    taken: tuple[Any, list[Took | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = time.thread_time

    def thread_time() -> float:
        time.sleep(0.05)
        return asked()

    runner, steps = taken
    monkeypatch.setattr(time, "thread_time", thread_time)
    runner.logits(TOKENS[:1])
    (took,) = steps
    assert took is not None
    assert took.seconds >= 0.1  # before the step, and behind it


def test_the_wait_for_another_model_is_no_part_of_what_a_step_takes(
    taken: tuple[Any, list[Took | None]],
) -> None:
    runner, steps = taken
    begun = time.perf_counter()
    with native._turn:  # another model's step runs
        thread = threading.Thread(target=runner.logits, args=(TOKENS,))
        thread.start()
        time.sleep(0.2)
        assert not steps
        waited = time.perf_counter() - begun
    thread.join()
    (took,) = steps
    assert took is not None
    assert took.computed > 0
    assert took.seconds <= time.perf_counter() - begun - waited


def test_pool_grows_shrinks_and_comes_back(start: Any, expected: Float32) -> None:
    for threads in (1, 4, 2):
        runner = start(threads=threads)
        assert_same_bits(runner.logits(TOKENS), expected)
        runner.executor.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_can_go_on(start: Any, expected: Float32) -> None:
    runner = start(threads=2)
    runner.logits(TOKENS[:100])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that forking with threads is unwise
        child = os.fork()
    if child == 0:
        same = False
        try:
            got = runner.logits(TOKENS[100:])
            same = bool(np.array_equal(got.view(np.uint32), expected[100:].view(np.uint32)))
            runner.executor.close()
        finally:
            os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert_same_bits(runner.logits(TOKENS[100:]), expected[100:])


def test_rounding_mode_of_the_caller_is_ignored_and_kept(start: Any, expected: Float32) -> None:
    upward = {"x86_64": 0x800, "aarch64": 0x400000}.get(platform.machine())
    if upward is None:
        pytest.skip(f"the code of FE_UPWARD on {platform.machine()} is not known")
    runner = start(threads=2)
    libm = ctypes.CDLL(None)
    batch = runner.batch({0: TOKENS})
    before = libm.fegetround()
    assert libm.fesetround(upward) == 0
    try:
        result = runner.executor.step(batch)
        assert libm.fegetround() == upward
    finally:
        libm.fesetround(before)
    assert_same_bits(result.logits, expected)
