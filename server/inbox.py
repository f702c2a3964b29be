"""Inboxes of requests, which tell the service what has ended."""

from __future__ import annotations

from collections.abc import Callable

from edge_llm.runner.engine.events import FinishEvent
from edge_llm.runner.engine.statistics import RequestStatistics
from edge_llm.runner.generation.async_inbox import AsyncInbox, Bell
from edge_llm.runner.generation.inbox import Item, ends


class ServedInbox(AsyncInbox):
    """An inbox that tells the figures of each answer that has ended, and when the last one has,
    read or not."""

    def __init__(
        self,
        bell: Bell,
        on_answer: Callable[[RequestStatistics], None],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(bell)
        self._on_answer = on_answer
        self._on_end = on_end
        self._running = 0

    def expect(self, answers: int) -> None:
        """Say how many answers there will be, before there are any."""
        self._running = answers

    def arrive(self, item: Item) -> None:
        """Give an item to the reader, and tell what it ends."""
        super().arrive(item)
        if isinstance(item, tuple) and ends(item):
            if isinstance(item[1], FinishEvent):
                self._on_answer(item[1].stats)
            self._running -= 1
            if self._running == 0:
                self._on_end()
