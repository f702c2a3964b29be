"""Requests for vectors and scores on the server: counted in, watched for a client that hangs up,
counted out. The one place where all dialects get embeddings from."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from starlette.requests import Request
from starlette.types import Receive

from edge_llm.api.embeddings import EmbedCall, EmbedJob
from edge_llm.api.rerank import JudgeJob, RerankCall
from edge_llm.errors import ProgramError
from edge_llm.runner.executor import Float32
from edge_llm.runner.generation.async_inbox import AsyncInbox
from edge_llm.runner.generation.vectors import Float64
from edge_llm.server.errors import invalid, unavailable
from edge_llm.server.gate.exchange import client_of
from edge_llm.server.generation import ClientGoneError
from edge_llm.server.models.model import Model
from edge_llm.server.service import Service
from edge_llm.tokenizers.pieces import interruptible

_T = TypeVar("_T")


class Encode(Protocol):
    """Runs what encodes texts on a thread for that, where it can be broken off."""

    def __call__(self, make: Callable[[], _T], /) -> Awaitable[_T]: ...


@dataclass(frozen=True, slots=True)
class Ranked:
    """The scores of a request's documents in their order, and the tokens of all texts."""

    scores: list[float]
    tokens: int


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of a request's texts, [n, dimensions], and the tokens of all texts."""

    vectors: Float32
    tokens: int


async def embed(service: Service, model: Model, call: EmbedCall, http: Request) -> Embedded:
    """Return the vectors of some texts, which a request asks for. They count as one choice, however
    many they are: the engine gets a few of them at a time.

    Raises:
        ApiError: 429 if too many choices run or wait, 503 if the server stops, 400 if the program
            has no vectors.
        ClientGoneError: the client hung up.
        EdgeLLMError: as `LLM.embed`.
    """

    async def work(encode: Encode) -> Embedded:
        job = await encode(lambda: _supported(lambda: model.embed_job(call)))
        return Embedded(job.finish(await _collect(model, job, http)), sum(map(len, job.ids)))

    return await served(service, model, work, http)


async def rerank(service: Service, model: Model, call: RerankCall, http: Request) -> Ranked:
    """Return how relevant some documents are. They count as one choice. Raises as `embed`, and
    EdgeLLMError as `LLM.rerank`."""

    async def work(encode: Encode) -> Ranked:
        found = await encode(lambda: _supported(lambda: model.rerank_job(call)))
        scores = found.finish(await _collect(model, found.job, http))
        return Ranked(scores, sum(map(len, found.job.ids)))

    return await served(service, model, work, http)


async def _collect(model: Model, job: EmbedJob | JudgeJob, http: Request) -> list[Float64]:
    vectors = model.vectors(job, AsyncInbox(), client_of(http.scope))
    try:
        return await vectors.collect()
    finally:
        vectors.close()


async def served(
    service: Service,
    model: Model,
    work: Callable[[Encode], Coroutine[Any, Any, _T]],
    http: Request,
) -> _T:
    """Return what ``work`` gives, for which ``model`` stays loaded. It is cancelled when the client
    of the request hangs up or the server stops.

    Raises:
        ApiError: 429 if too many choices run or wait, 503 if the server stops.
        ClientGoneError: the client hung up.
        Exception: what ``work`` raises.
    """
    entry = _Entry(service, client_of(http.scope))
    service.enter(entry, 1, model)
    loop = asyncio.get_running_loop()
    watcher = loop.create_task(entry.watch(http.receive))
    entry.task = task = loop.create_task(work(entry.encode))
    try:
        return await task
    except asyncio.CancelledError:
        if entry.reason is not None:
            raise entry.reason from None
        entry.end(ClientGoneError())  # it is this request's own task that is cancelled
        raise
    finally:
        watcher.cancel()
        service.leave(entry)


class _Entry:
    """A request that runs, and why it was ended, if it was."""

    def __init__(self, service: Service, client: str) -> None:
        self._service = service
        self._client = client
        self.task: asyncio.Task[Any] | None = None
        self.reason: Exception | None = None

    def abort(self) -> None:
        """End it: the server is stopping."""
        self.end(unavailable("The server is stopping."))

    async def watch(self, receive: Receive) -> None:
        """Wait for the client's hanging up, and end the request then."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.end(ClientGoneError())

    def end(self, reason: Exception) -> None:
        """Cancel the request's work."""
        self.reason = self.reason or reason
        if self.task is not None:
            self.task.cancel()

    async def encode(self, make: Callable[[], _T], /) -> _T:
        """See `Encode`."""

        def work() -> _T:
            with interruptible(self._check):
                self._check()
                return make()

        return await self._service.encoders.run(self._client, work)

    def _check(self) -> None:
        if self.reason is not None:
            raise self.reason


def _supported(make: Callable[[], _T]) -> _T:
    """Return what ``make`` makes, if the program can do it at all.

    Raises:
        ApiError: 400, it cannot; to try again does not help.
    """
    try:
        return make()
    except ProgramError as exc:
        raise invalid(f"The model gives no vectors: {exc}.", "model", "unsupported_value") from exc
