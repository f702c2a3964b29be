"""Inboxes whose reader runs on an event loop, and what wakes the loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from edge_llm.runner.generation.inbox import TOGETHER_SECONDS, Item, ends


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


class AsyncInbox:
    """An inbox whose reader runs on the event loop that is running now, or on that of ``bell``,
    which serves other inboxes too."""

    def __init__(self, bell: Bell | None = None) -> None:
        self._bell = bell or Bell()
        self._loop = self._bell.loop
        self._left: deque[Item] = deque()
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        self._awaited = False  # the loop knows that something was left
        self._timer: asyncio.TimerHandle | None = None  # and takes it in later
        self._next = 0.0  # the time (of the loop) before which only ends are taken in at once

    @property
    def filled(self) -> bool:
        """Return True if `get` would not wait."""
        return not self._items.empty()

    def put(self, item: Item) -> None:
        """Leave an item. From any thread.

        Raises:
            RuntimeError: the loop was closed under a request that still ran, which this ends.
        """
        # What is left before the loop forgets that it knows is found by the loop, what is left
        # after that tells it again.
        self._left.append(item)
        if ends(item):
            self._bell.ring(self._take_in)
        elif not self._awaited or self._loop.is_closed():  # a closed one refuses
            self._awaited = True
            self._bell.ring(self._look)

    async def get(self) -> Item:
        """Return the next item, once there is one."""
        return await self._items.get()

    def arrive(self, item: Item) -> None:
        """Give an item that was left to the reader; called on the loop."""
        self._items.put_nowait(item)

    def _look(self) -> None:
        if not self._awaited or self._timer is not None:
            return  # an end came in between
        if (wait := self._next - self._loop.time()) > 0:
            self._timer = self._loop.call_later(wait, self._take_in)
        else:
            self._take_in()

    def _take_in(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._awaited = False
        self._next = self._loop.time() + TOGETHER_SECONDS
        try:
            for _ in range(len(self._left)):  # not what is left meanwhile: it is told again
                self.arrive(self._left.popleft())
        except BaseException:
            self._loop.call_soon(self._take_in)  # an error with one keeps no other from arriving
            raise
