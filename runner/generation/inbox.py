"""Inboxes, in which an engine's thread leaves events for the reader of a generation.

Waking a reader takes time of a core that tokens are computed with, so that what comes soon after
other things is read together with what comes next. What ends an answer waits for nothing."""

from __future__ import annotations

import queue
import time
from collections import deque
from contextlib import suppress
from typing import Protocol

from edge_llm.runner.engine.events import ErrorEvent, Event, FinishEvent

# Tokens that come within so little time are read together; people read more slowly.
TOGETHER_SECONDS = 0.01

# An event of one choice, or an error that ends the reading.
Item = tuple[int, Event] | Exception


class Inbox(Protocol):
    """A place where the engine's thread leaves events for the reader."""

    def put(self, item: Item) -> None:
        """Leave an item, from any thread, without waiting."""

    async def get(self) -> Item:
        """Take the next item; wait for it."""


def tell(inbox: Inbox, choice: int, event: Event) -> None:
    """Leave an event of one choice in an inbox; for `functools.partial`."""
    inbox.put((choice, event))


def ends(item: Item) -> bool:
    """Return True if an item ends an answer, or the reading."""
    return isinstance(item, Exception) or isinstance(item[1], FinishEvent | ErrorEvent)


class BlockingInbox:
    """An inbox whose reader blocks its thread: `get` never suspends. One thread at a time reads."""

    def __init__(self) -> None:
        self._left: deque[Item] = deque()
        # A signal may interrupt whoever waits; a `threading.Event` can keep its lock then.
        self._told: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._hungry = False  # the reader wants to be told of whatever comes
        self._fed = 0  # how many items may be taken without waiting
        self._next = 0.0  # the time before which the reader is told of ends alone

    def put(self, item: Item) -> None:
        """Leave an item. From any thread."""
        self._left.append(item)  # before the look at the reader, who looks here after saying so
        if self._hungry or ends(item):
            self._told.put(None)

    async def get(self) -> Item:
        """Return the next item, once there is one."""
        if not self._fed:
            self._wait()
        self._fed -= 1
        return self._left.popleft()

    def _wait(self) -> None:
        """Wait until something is there, and a little longer if it comes soon after other things
        and ends nothing."""
        if (pause := self._next - time.monotonic()) > 0:
            with suppress(queue.Empty):
                self._told.get(timeout=pause)
        self._hungry = True
        while not self._told.empty():
            self._told.get()  # told of what is found now
        while not self._left:
            self._told.get()
        self._hungry = False
        self._fed = len(self._left)
        self._next = time.monotonic() + TOGETHER_SECONDS
