"""The vectors of several texts: what the generation loop is for answers, this is for embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edge_llm.runner.engine.events import EmbeddingEvent, ErrorEvent, EventCallback, FinishEvent
from edge_llm.runner.executor import Float32
from edge_llm.runner.generation.loop import BlockingInbox, Handle, Inbox, tell

Float64 = NDArray[np.float64]
Submit = Callable[[Sequence[int], EventCallback], Handle]


class Vectors:
    """The vectors of some texts of token ids. Read them with `collect`, and `close` in any case.

    At most ``most`` texts are with the engine at a time, so that other requests get their turn
    between them however many there are.
    """

    def __init__(
        self, submit: Submit, texts: Sequence[Sequence[int]], inbox: Inbox, *, most: int
    ) -> None:
        """Submit the first texts.

        Raises:
            EdgeLLMError: as `Engine.submit_embedding`; then none runs.
        """
        self._submit = submit
        self._texts = texts
        self._inbox = inbox
        self._vectors: list[Float64 | None] = [None] * len(texts)
        self._running: dict[int, Handle] = {}
        self._next = 0
        try:
            while self._next < min(most, len(texts)):
                self._begin()
        except BaseException:
            self.close()
            raise

    async def collect(self) -> list[Float64]:
        """Return the vectors, [width] each, in the order of the texts.

        Raises:
            EdgeLLMError: a text failed, or was refused.
            Exception: what `fail` was given.
        """
        try:
            while self._running:
                await self._take()
        except BaseException:
            self.close()
            raise
        return [vector for vector in self._vectors if vector is not None]

    async def _take(self) -> None:
        item = await self._inbox.get()
        if isinstance(item, Exception):
            raise item
        index, event = item
        if isinstance(event, ErrorEvent):
            raise event.error
        if isinstance(event, EmbeddingEvent):
            self._vectors[index] = event.vector
        elif isinstance(event, FinishEvent):
            del self._running[index]
            if self._next < len(self._texts):
                self._begin()

    def _begin(self) -> None:
        index = self._next
        self._next += 1
        self._running[index] = self._submit(self._texts[index], partial(tell, self._inbox, index))

    def fail(self, error: Exception) -> None:
        """Cancel what still runs, and let `collect` raise ``error``. From any thread."""
        self._inbox.put(error)
        self.cancel()

    def cancel(self) -> None:
        """Cancel what still runs. From any thread, any number of times."""
        for handle in list(self._running.values()):
            handle.cancel()

    def close(self) -> None:
        """Cancel what still runs, and end the reading; more than once is fine."""
        self.cancel()
        self._running.clear()


def finished(vectors: Iterable[Float64], dimensions: int, *, normalize: bool) -> Float32:
    """Return the first ``dimensions`` numbers of vectors, [n, dimensions] float32; ``normalize``:
    at the length 1, but for zeros, which stay what they are."""
    rows = np.array([vector[:dimensions] for vector in vectors], np.float64)
    rows = rows.reshape(-1, dimensions)
    if normalize:
        lengths = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
        rows = rows / np.where(lengths > 0, lengths, 1.0)
    return rows.astype(np.float32)


def blocking(begin: Callable[[Inbox], Vectors]) -> list[Float64]:
    """Return the vectors that ``begin`` submits to an inbox, for a reader that blocks its thread.

    Raises:
        EdgeLLMError: as `Vectors` and its `collect`.
    """
    vectors = begin(BlockingInbox())
    try:
        vectors.collect().send(None)  # an inbox that blocks never suspends
    except StopIteration as done:
        collected: list[Float64] = done.value
        return collected
    finally:
        vectors.close()
    raise AssertionError("an inbox that blocks has suspended")
