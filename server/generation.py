"""A generating request on the server: counted in before its text is looked at, watched for a client
that hangs up, counted out when its answers are complete.

The generation itself is `edge_llm.runner.generation.loop`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from starlette.types import Receive

from edge_llm.runner.generation.answer import Piece
from edge_llm.runner.generation.loop import Generation, Job, Submit
from edge_llm.server.errors import unavailable
from edge_llm.server.inbox import ServedInbox
from edge_llm.server.models.model import Model
from edge_llm.server.service import Service
from edge_llm.tokenizers.pieces import interruptible

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
        self._inbox: ServedInbox | None = None
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
        service = self._service
        inbox = ServedInbox(service.bell, service.on_answer, lambda: service.leave(self))
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
