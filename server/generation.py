"""A generating request on the server: counted in before its text is looked at, watched for a client
that hangs up, counted out when its answers are complete.

The generation itself is `edge_llm.runner.generation.loop`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from starlette.types import Receive

from edge_llm.runner.engine.events import ErrorEvent, FinishEvent
from edge_llm.runner.engine.statistics import RequestStatistics
from edge_llm.runner.generation.answer import Piece
from edge_llm.runner.generation.loop import Generation, Item, Job, Submit
from edge_llm.server.errors import unavailable
from edge_llm.server.models.model import Model
from edge_llm.server.service import Service
from edge_llm.tokenizers.pieces import interruptible

# Tokens that come within so little time are sent together; people read more slowly.
TOGETHER_SECONDS = 0.01
# So many pieces at most are written in one turn of the event loop, for the other clients' sake: a
# reader who paused may find thousands.
TOGETHER_PIECES = 64


class ClientGoneError(Exception):
    """The client hung up: nobody will read a reply."""


class HasJobs(Protocol):
    """What is made of a request before it can begin."""

    @property
    def jobs(self) -> Sequence[Job]:
        """One for each answer."""


Prepared = TypeVar("Prepared", bound=HasJobs)


class ServedGeneration:
    """The answers of one HTTP request. `start` it, read `pieces`, and `close` it in any case."""

    def __init__(
        self, service: Service, model: Model, choices: int, receive: Receive, client: str
    ) -> None:
        """Take a place for so many ``choices`` of a model, for a ``client``. From now on
        ``receive`` is watched for the client's hanging up, in every phase, reply begun or not.

        Raises:
            ApiError: 429 if too many choices run or wait, 503 if the server is stopping.
        """
        self._service = service
        self._client = client
        service.enter(self, choices, model)
        loop = asyncio.get_running_loop()
        self._failure: Exception | None = None
        self._failed = asyncio.Event()
        self._generation: Generation | None = None
        self._inbox: _Inbox | None = None
        self._watcher = loop.create_task(self._watch(receive))

    async def start(self, submit: Submit, prepare: Callable[[], Prepared]) -> Prepared:
        """Return what ``prepare`` makes, with its jobs submitted. It runs on one of the few threads
        that encode texts; when the client hangs up or the server stops it is left to itself, and
        ends between two pieces of a text.

        Raises:
            ApiError: the server is stopping.
            ClientGoneError: the client hung up.
            Exception: what ``prepare`` raises, or the engine for a job; none runs then.
        """
        inbox = _Inbox(self._service.on_answer, lambda: self._service.leave(self))
        self._inbox = inbox

        def work() -> Prepared:
            with interruptible(self._check):
                self._check()
                prepared = prepare()
                self._check()
                inbox.expect(len(prepared.jobs))
                self._generation = Generation(
                    partial(submit, client=self._client), prepared.jobs, inbox
                )
                if self._failure is not None:  # since then: whoever comes second sees the other
                    self._generation.close()
                return prepared

        working = asyncio.ensure_future(self._service.encoders.run(self._client, work))
        failing = asyncio.ensure_future(self._failed.wait())
        try:
            waited: set[asyncio.Future[Any]] = {working, failing}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            failing.cancel()
            if not working.done():
                working.cancel()  # which keeps it from beginning; else it ends by itself
        if self._failure is not None:
            if working.done() and not working.cancelled():
                working.exception()  # it is known why
            raise self._failure
        return working.result()

    async def pieces(self) -> AsyncGenerator[list[Piece]]:
        """Yield the pieces of all answers, in the order in which they come: up to
        `TOGETHER_PIECES` of those that are there at once. Others have a turn of the event loop
        between two lists.

        Raises:
            EdgeLLMError: an answer failed.
            ApiError: the server is stopping.
            ClientGoneError: the client hung up.
        """
        assert self._generation is not None
        assert self._inbox is not None
        while (piece := await self._generation.next()) is not None:
            there = [piece]
            failure: Exception | None = None
            while self._inbox.filled and failure is None and len(there) < TOGETHER_PIECES:
                try:
                    piece = await self._generation.next()
                except Exception as exc:
                    failure = exc  # behind what came before it
                    break
                if piece is None:
                    break
                there.append(piece)
            yield there
            if failure is not None:
                raise failure
            if len(there) == TOGETHER_PIECES:  # else there is no more, and `next` waits
                await asyncio.sleep(0)

    def abort(self) -> None:
        """End it with an error."""
        self._fail(unavailable("The server is stopping."))

    def close(self) -> None:
        """Cancel what still runs and let go of everything; more than once is fine."""
        self._failure = self._failure or ClientGoneError()  # for what is being prepared
        if self._generation is not None:
            self._generation.close()
        self._service.leave(self)
        self._watcher.cancel()

    def _check(self) -> None:
        """Raise what has ended it, if anything has. From any thread."""
        if self._failure is not None:
            raise self._failure

    def _fail(self, failure: Exception) -> None:
        self._failure = failure
        self._failed.set()
        if self._generation is not None:
            self._generation.fail(failure)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        # Here and not in the reader alone: a stream may be dropped before it is read at all.
        self._fail(ClientGoneError())
        self._service.leave(self)


class _Inbox:
    """An inbox that tells the figures of each answer that has ended, and when the last one has,
    read or not.

    What comes soon after other things waits a little and is read together with what comes next:
    waking the event loop for each of many hundred tokens a second would take the time of one of
    the engine's cores that they are computed with."""

    def __init__(
        self, on_answer: Callable[[RequestStatistics], None], on_end: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._left: deque[Item] = deque()
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        self._on_answer = on_answer
        self._on_end = on_end
        self._running = 0
        self._awaited = False  # the loop knows that something was left
        self._next = 0.0  # the time (of the loop) before which nothing more is taken in

    @property
    def filled(self) -> bool:
        """Whether `get` would not wait."""
        return not self._items.empty()

    def expect(self, answers: int) -> None:
        """Say how many answers there will be, before there are any."""
        self._running = answers

    def put(self, item: Item) -> None:
        # What is left before the loop forgets that it knows is found by the loop, what is left
        # after that tells it again. Fails where the loop was closed under a request that still
        # ran, which ends it.
        self._left.append(item)
        if isinstance(item, Exception):
            self._loop.call_soon_threadsafe(self._take_in)
        elif not self._awaited:
            self._awaited = True
            self._loop.call_soon_threadsafe(self._look)

    async def get(self) -> Item:
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
