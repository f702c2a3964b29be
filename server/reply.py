"""One HTTP reply to one generating request, streamed or whole, in whatever dialect."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from edge_llm.runner.generation.answer import Piece
from edge_llm.runner.generation.loop import Job
from edge_llm.server.errors import ApiError, translate
from edge_llm.server.gate.exchange import CLIENT_GONE, Exchange, client_of, exchange_of
from edge_llm.server.generation import ClientGoneError, ServedGeneration
from edge_llm.server.models.model import Model
from edge_llm.server.service import Service
from edge_llm.server.tally import Tally

IGNORED_HEADER = "x-edge-llm-ignored"
CONTEXT_HEADER = "x-edge-llm-context"


class Shape(Protocol):
    """The way in which a dialect writes the answers to one request. One object a reply."""

    media_type: str  # of a stream

    def begin(self) -> Iterable[bytes]:
        """Return what a stream begins with."""

    def piece(self, piece: Piece, tally: Tally) -> Iterable[bytes]:
        """Return what a stream says of a piece; ``tally`` knows it already."""

    def end(self, tally: Tally) -> Iterable[bytes]:
        """Return what a stream ends with."""

    def failed(self, error: ApiError) -> bytes:
        """Return how a stream says that it failed; it ends there."""

    def collected(self, choices: Sequence[Sequence[Piece]], tally: Tally) -> dict[str, Any]:
        """Return a whole reply, from all pieces of each choice."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that can begin: its jobs, ``n`` for each prompt, and how its answers are
    written."""

    jobs: Sequence[Job]
    shape: Shape
    n: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One reply.

    Attributes:
        choices: how many answers there will be.
        stream: answer in parts.
        prompt_field: the part of the request that holds the prompt, for errors.
        prepare: makes the jobs; called in a thread, since texts are encoded in it. It may raise
            whatever `translate` knows.
        ignored: names of fields that have no meaning here.
    """

    service: Service
    model: Model
    choices: int
    stream: bool
    prompt_field: str
    prepare: Callable[[], Prepared]
    ignored: Sequence[str] = ()

    async def respond(self, request: Request) -> Response:
        """Run the request; errors before a stream begins are raised.

        Raises:
            ApiError: it was refused or failed.
        """
        generation = ServedGeneration(
            self.service, self.model, self.choices, request.receive, client_of(request.scope)
        )
        try:
            prepared = await generation.start(self.model.submit, self.prepare)
        except ClientGoneError:
            generation.close()
            return Response(status_code=CLIENT_GONE)
        except BaseException as exc:
            generation.close()
            if isinstance(exc, Exception):
                raise translate(exc, self.prompt_field) from exc
            raise
        told = ignored_header(self.ignored) | _context_header(prepared)
        if self.stream:
            headers = {"cache-control": "no-cache", "x-accel-buffering": "no", **told}
            parts = self._events(generation, prepared, exchange_of(request.scope))
            media_type = prepared.shape.media_type
            return Stream(parts, generation.close, media_type=media_type, headers=headers)
        try:
            return JSONResponse(await _collect(generation, prepared), headers=told)
        except ClientGoneError:
            return Response(status_code=CLIENT_GONE)
        except Exception as exc:
            raise translate(exc, self.prompt_field) from exc
        finally:
            generation.close()

    async def _events(
        self, generation: ServedGeneration, prepared: Prepared, exchange: Exchange
    ) -> AsyncGenerator[bytes]:
        shape, tally = prepared.shape, Tally(prepared.jobs, prepared.n)
        try:
            for part in shape.begin():
                yield part
            async for pieces in generation.pieces():
                parts: list[bytes] = []
                for piece in pieces:
                    tally.add(piece)
                    parts += shape.piece(piece, tally)
                if parts:
                    yield b"".join(parts)
            for part in shape.end(tally):
                yield part
        except ClientGoneError:
            return
        except Exception as exc:
            exchange.failure = translate(exc, self.prompt_field)
            yield shape.failed(exchange.failure)
        finally:
            generation.close()


def ignored_header(ignored: Sequence[str]) -> dict[str, str]:
    """Return the header that names the fields of a request which have no meaning here."""
    return {IGNORED_HEADER: ", ".join(ignored)} if ignored else {}


def _context_header(prepared: Prepared) -> dict[str, str]:
    """Return the header that says what was left out of the prompts, if anything was."""
    reports = [job.report for job in prepared.jobs[:: prepared.n] if job.report is not None]
    if not reports:
        return {}
    report = reduce(add, reports)
    told = f"dropped_prompt_tokens={report.dropped_prompt_tokens}"
    if report.dropped_messages:
        told += f"; dropped_messages={report.dropped_messages}"
    return {CONTEXT_HEADER: f"{report.policy}; {told}"}


async def _collect(generation: ServedGeneration, prepared: Prepared) -> dict[str, Any]:
    tally = Tally(prepared.jobs, prepared.n)
    choices: list[list[Piece]] = [[] for _ in prepared.jobs]
    async for pieces in generation.pieces():
        for piece in pieces:
            choices[piece.choice].append(piece)
            tally.add(piece)
    return prepared.shape.collected(choices, tally)


class Stream(Response):
    """A reply whose parts are sent as they come. Nothing here listens to the client: the generation
    does, and ends the parts."""

    def __init__(
        self,
        parts: AsyncGenerator[bytes],
        close: Callable[[], None],
        *,
        media_type: str,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(media_type=media_type, headers=headers)
        self._parts = parts
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async with aclosing(self._parts) as parts:
                async for part in parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._close()  # the parts close nothing where the first was never asked for


# ASCII: some clients end lines at U+2028 and its like, which JSON allows inside strings.
_encode = json.JSONEncoder(separators=(",", ":")).encode


def encoded(data: Any) -> bytes:
    """Return JSON on one line."""
    return _encode(data).encode()


def event(data: dict[str, Any], name: str | None = None) -> bytes:
    """Return a server-sent event."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + encoded(data) + b"\n\n"
