"""Readers are given together what comes soon after other things, and told of ends at once."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Coroutine
from typing import Any

import pytest
import waiting

from edge_llm.errors import GenerationError
from edge_llm.runner.engine.events import ErrorEvent, TokenEvent
from edge_llm.runner.generation import async_inbox, inbox
from edge_llm.runner.generation.async_inbox import AsyncInbox
from edge_llm.runner.generation.inbox import BlockingInbox, Item

TOKENS: list[Item] = [(0, TokenEvent(number, None)) for number in range(4)]
ENDS: list[Item] = [(0, ErrorEvent(GenerationError("gone"))), RuntimeError("the server stops")]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for more waits for ever."""
    monkeypatch.setattr(inbox, "TOGETHER_SECONDS", 1e6)
    monkeypatch.setattr(async_inbox, "TOGETHER_SECONDS", 1e6)


def blocked(coroutine: Coroutine[Any, Any, Item]) -> Item:
    """Return what a coroutine that never suspends returns."""
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    item: Item = done.value.value
    return item


@pytest.mark.parametrize("end", ENDS)
def test_a_blocked_reader_is_told_of_the_first_item_and_of_ends(slow: None, end: Item) -> None:
    box, read = BlockingInbox(), queue.SimpleQueue[Item]()

    def reader() -> None:
        while True:
            read.put(item := blocked(box.get()))
            if item is end:
                return

    box.put(TOKENS[0])
    thread = threading.Thread(target=reader, daemon=True)
    thread.start()
    assert read.get(timeout=waiting.MOST) == TOKENS[0]
    for item in TOKENS[1:]:
        box.put(item)
    with pytest.raises(queue.Empty):
        read.get(timeout=0.2)
    box.put(end)
    assert [read.get(timeout=waiting.MOST) for _ in range(4)] == [*TOKENS[1:], end]
    thread.join()


def read_all(box: BlockingInbox, count: int) -> queue.SimpleQueue[Item]:
    """Read so many items on a thread of its own, which may hang."""
    read = queue.SimpleQueue[Item]()

    def reader() -> None:
        for _ in range(count):
            read.put(blocked(box.get()))

    threading.Thread(target=reader, daemon=True).start()
    return read


def test_a_blocked_reader_is_told_of_what_comes_late() -> None:
    box = BlockingInbox()
    read = read_all(box, len(TOKENS))
    for item in TOKENS:
        time.sleep(3 * inbox.TOGETHER_SECONDS)
        box.put(item)
        assert read.get(timeout=waiting.MOST) == item


def test_nothing_is_lost_between_two_threads() -> None:
    box, many = BlockingInbox(), 20_000
    read = read_all(box, many + 1)
    for number in range(many):
        box.put((number, TokenEvent(number, None)))
    box.put(ENDS[0])
    for number in range(many):
        assert read.get(timeout=waiting.MOST) == (number, TokenEvent(number, None))
    assert read.get(timeout=waiting.MOST) == ENDS[0]


@pytest.mark.parametrize("end", ENDS)
def test_an_event_loop_is_told_of_the_first_item_and_of_ends(slow: None, end: Item) -> None:
    async def read() -> None:
        box = AsyncInbox()
        box.put(TOKENS[0])
        assert await box.get() == TOKENS[0]
        for item in TOKENS[1:]:
            box.put(item)
        await asyncio.sleep(0.1)
        assert not box.filled
        box.put(end)
        assert [await box.get() for _ in range(4)] == [*TOKENS[1:], end]

    asyncio.run(asyncio.wait_for(read(), waiting.MOST))


def test_a_loop_that_closed_while_something_waited_refuses_the_next(slow: None) -> None:
    async def leave() -> AsyncInbox:
        box = AsyncInbox()
        box.put(TOKENS[0])
        await box.get()
        box.put(TOKENS[1])
        await asyncio.sleep(0.01)  # the loop has seen it, and would take it in later
        return box

    box = asyncio.run(leave())
    with pytest.raises(RuntimeError, match="closed"):
        box.put(TOKENS[2])


def test_ends_leave_no_timers_behind(slow: None) -> None:
    async def leave() -> int:
        loop, box = asyncio.get_running_loop(), AsyncInbox()
        timers: list[asyncio.TimerHandle] = []
        later = loop.call_later

        def call_later(delay: float, *arguments: Any) -> asyncio.TimerHandle:
            timer = later(delay, *arguments)
            if delay > waiting.MOST:  # none of a sleep
                timers.append(timer)
            return timer

        loop.call_later = call_later  # type: ignore[method-assign]
        box.put(TOKENS[0])
        await box.get()
        for _ in range(3):
            box.put(TOKENS[1])
            await asyncio.sleep(0.01)
            box.put(ENDS[0])
            assert [await box.get(), await box.get()] == [TOKENS[1], ENDS[0]]
        assert len(timers) == 3
        return sum(not timer.cancelled() for timer in timers)

    assert asyncio.run(leave()) == 0


def test_an_error_with_one_item_keeps_no_other_from_arriving() -> None:
    class Failing(AsyncInbox):
        def arrive(self, item: Item) -> None:
            super().arrive(item)
            if item == TOKENS[0]:
                raise RuntimeError("a fault of ours")

    async def read() -> list[Item]:
        asyncio.get_running_loop().set_exception_handler(lambda loop, error: None)
        box = Failing()
        for item in TOKENS:
            box.put(item)
        return [await box.get() for _ in TOKENS]

    assert asyncio.run(asyncio.wait_for(read(), waiting.MOST)) == TOKENS


def test_what_another_thread_leaves_reaches_a_loop() -> None:
    async def read() -> None:
        box, many = AsyncInbox(), 20_000

        def write() -> None:
            for number in range(many):
                box.put((number, TokenEvent(number, None)))

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        for number in range(many):
            assert await box.get() == (number, TokenEvent(number, None))
        await asyncio.to_thread(thread.join)

    asyncio.run(asyncio.wait_for(read(), waiting.MOST))
