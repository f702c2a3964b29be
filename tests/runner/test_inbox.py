"""What the engine's thread leaves for a reader: together, if it comes soon after other things, but
ends at once."""

from __future__ import annotations

import asyncio
import queue
import threading
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

    thread = threading.Thread(target=reader, daemon=True)
    thread.start()
    box.put(TOKENS[0])
    assert read.get(timeout=waiting.MOST) == TOKENS[0]
    for item in TOKENS[1:]:
        box.put(item)
    with pytest.raises(queue.Empty):
        read.get(timeout=0.2)
    box.put(end)
    assert [read.get(timeout=waiting.MOST) for _ in range(4)] == [*TOKENS[1:], end]
    thread.join()


def test_a_blocked_reader_is_told_of_what_comes_late() -> None:
    box = BlockingInbox()
    for item in TOKENS:
        timer = threading.Timer(3 * inbox.TOGETHER_SECONDS, box.put, [item])
        timer.start()
        assert blocked(box.get()) == item
        timer.join()


def test_nothing_is_lost_between_two_threads() -> None:
    box, many = BlockingInbox(), 20_000

    def write() -> None:
        for number in range(many):
            box.put((number, TokenEvent(number, None)))
        box.put(ENDS[0])

    thread = threading.Thread(target=write)
    thread.start()
    for number in range(many):
        assert blocked(box.get()) == (number, TokenEvent(number, None))
    assert blocked(box.get()) == ENDS[0]
    thread.join()


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
