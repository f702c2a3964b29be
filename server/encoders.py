"""The threads that encode texts, for which clients take turns."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")

# One long text must not keep the short ones waiting.
THREADS = 2


class Encoders:
    """Few threads, so that encoding leaves cores to the engine. Used on one event loop."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="edge-llm-encoder")
        self._running = 0
        # The clients whose work waits, the one whose turn it is first.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def run(self, client: str, work: Callable[[], _T]) -> _T:
        """Return what ``work`` gives, once it is the client's turn. Cancelled, it is not begun, or
        left to itself.

        Raises:
            Exception: what ``work`` raises.
        """
        loop = asyncio.get_running_loop()
        if self._running < THREADS:
            self._running += 1
        else:
            turn = loop.create_future()
            self._waiting.setdefault(client, deque()).append(turn)
            try:
                await turn  # which hands over the thread of somebody else
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._hand_over()
                raise
        working = self._pool.submit(work)
        working.add_done_callback(lambda done: _on(loop, self._hand_over))
        return await asyncio.wrap_future(working)

    def shutdown(self) -> None:
        """Wait until all threads have ended."""
        self._pool.shutdown()

    def _hand_over(self) -> None:
        """Let the next one have the thread of one that has ended."""
        while self._waiting:
            client = next(iter(self._waiting))
            turns = self._waiting.pop(client)
            turn = turns.popleft()
            if turns:
                self._waiting[client] = turns  # behind the others
            if not turn.done():
                turn.set_result(None)
                return
        self._running -= 1


def _on(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Call it on the loop, unless that was closed meanwhile."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)
