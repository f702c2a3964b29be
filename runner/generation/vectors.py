"""The vectors of several texts: what the generation loop is for answers, this is for embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import GenerationError
from edge_llm.runner.engine.events import (
    EmbeddingEvent,
    ErrorEvent,
    Event,
    EventCallback,
    FinishEvent,
    LogitsEvent,
)
from edge_llm.runner.executor import Float32
from edge_llm.runner.generation.inbox import BlockingInbox, Inbox, tell
from edge_llm.runner.generation.loop import Handle

Float64 = NDArray[np.float64]
Submit = Callable[[Sequence[int], EventCallback], Handle]
Take = Callable[[Event], Float64 | None]


def pooled(event: Event) -> Float64 | None:
    """Return the vector of an embedding, None of another event."""
    return event.vector if isinstance(event, EmbeddingEvent) else None


def logits_of(*ids: int) -> Take:
    """Return what takes the logits of ``ids``, in this order, for the token after a text."""

    def take(event: Event) -> Float64 | None:
        if not isinstance(event, LogitsEvent):
            return None
        return event.logits[-1, list(ids)].astype(np.float64)

    return take


class Vectors:
    """The vectors of some texts of token ids, or other numbers of each. Read them with `collect`,
    and `close` in any case.

    At most ``most`` texts are with the engine at a time, so that other requests get their turn
    between them however many there are.
    """

    def __init__(
        self,
        submit: Submit,
        texts: Sequence[Sequence[int]],
        inbox: Inbox,
        *,
        most: int,
        take: Take = pooled,
    ) -> None:
        """Submit the first texts. ``take`` gives the numbers of a text in the event that has them.

        Raises:
            EdgeLLMError: as ``submit``; then none runs.
        """
        self._take_numbers = take
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
        """Return the numbers of each, [width], in the order of the texts.

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
        if (numbers := self._take_numbers(event)) is not None:
            self._vectors[index] = numbers
        if isinstance(event, FinishEvent):
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


def cosines(vectors: Float32) -> list[float]:
    """Return the products of the first of vectors [n, width] with each of the others."""
    first, others = vectors[0].astype(np.float64), vectors[1:].astype(np.float64)
    return [float((first * other).sum()) for other in others]


def shares(logits: Sequence[Float64]) -> list[float]:
    """Return the probability of the first of two tokens, each time, if it is one of the two.

    Raises:
        GenerationError: a logit is not finite.
    """
    scores = []
    for yes, no in logits:
        if not (math.isfinite(yes) and math.isfinite(no)):
            raise GenerationError("the logits are not finite")
        ahead = float(yes - no)
        small = math.exp(-abs(ahead))
        scores.append((1.0 if ahead >= 0 else small) / (1.0 + small))
    return scores


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
