"""Inboxes of requests, in which engines' threads leave tokens and the event loop finds them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from edge_llm.runner.engine.events import ErrorEvent, FinishEvent
from edge_llm.runner.engine.statistics import RequestStatistics
from edge_llm.runner.generation.loop import Item

# Tokens that come within so little time are sent together; people read more slowly.
TOGETHER_SECONDS = 0.01


class Bell:
    """Wakes the event loop once for all who ring before it looks: a step has a token for each of
    its requests, and waking the loop takes longer than leaving a token."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ringing: deque[Callable[[], None]] = deque()
        self._rung = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop that it wakes."""
        return self._loop

    def ring(self, look: Callable[[], None]) -> None:
        """Have the loop call ``look`` soon. From any thread.

        Raises:
            RuntimeError: the loop is closed.
        """
        self._ringing.append(look)  # found by the loop if it has not forgotten that it was rung
        if not self._rung or self._loop.is_closed():  # a closed one, rung or not, refuses
            self._rung = True
            self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        self._rung = False
        for _ in range(len(self._ringing)):
            self._loop.call_soon(self._ringing.popleft())  # none is kept from it by another's error


class Inbox:
    """An inbox that tells the figures of each answer that has ended, and when the last one has,
    read or not.

    What comes soon after other things waits a little and is read together with what comes next:
    waking the event loop for each of many hundred tokens a second would take the time of one of
    the engine's cores that they are computed with."""

    def __init__(
        self,
        bell: Bell,
        on_answer: Callable[[RequestStatistics], None],
        on_end: Callable[[], None],
    ) -> None:
        self._bell, self._loop = bell, bell.loop
        self._left: deque[Item] = deque()
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        self._on_answer = on_answer
        self._on_end = on_end
        self._running = 0
        self._awaited = False  # the loop knows that something was left
        self._next = 0.0  # the time (of the loop) before which nothing more is taken in

    @property
    def filled(self) -> bool:
        """Return True if `get` would not wait."""
        return not self._items.empty()

    def expect(self, answers: int) -> None:
        """Say how many answers there will be, before there are any."""
        self._running = answers

    def put(self, item: Item) -> None:
        """Leave an item. From any thread."""
        # What is left before the loop forgets that it knows is found by the loop, what is left
        # after that tells it again. Fails where the loop was closed under a request that still
        # ran, which ends it.
        self._left.append(item)
        if isinstance(item, Exception):
            self._loop.call_soon_threadsafe(self._take_in)
        elif not self._awaited:
            self._awaited = True
            self._bell.ring(self._look)

    async def get(self) -> Item:
        """Return the next item, once there is one."""
        return await self._items.get()

    def _look(self) -> None:
        if (wait := self._next - self._loop.time()) > 0:
            self._loop.call_later(wait, self._take_in)
        else:
            self._take_in()

    def _take_in(self) -> None:
        self._awaited = False
        self._next = self._loop.time() + TOGETHER_SECONDS
        for _ in range(len(self._left)):  # not what is left meanwhile: it is told again
            self._arrive(self._left.popleft())

    def _arrive(self, item: Item) -> None:
        self._items.put_nowait(item)
        if isinstance(item, tuple) and isinstance(item[1], FinishEvent | ErrorEvent):
            if isinstance(item[1], FinishEvent):
                self._on_answer(item[1].stats)
            self._running -= 1
            if self._running == 0:
                self._on_end()
