"""The replies of both generating routes: a `ServedGeneration`, streamed or collected."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from edge_llm.api.prompts import jobs_of
from edge_llm.runner.executor import TokenLogprobs
from edge_llm.runner.generation.answer import Piece
from edge_llm.runner.generation.loop import Job
from edge_llm.server.errors import translate
from edge_llm.server.generation import ClientGoneError, ServedGeneration
from edge_llm.server.schemas import Sampling
from edge_llm.server.service import Model, Service
from edge_llm.server.tally import Tally
from edge_llm.tokenizers.tokenizer import Tokenizer

IGNORED_HEADER = "x-edge-llm-ignored"
CLIENT_GONE = 499  # nobody reads it; the log does

# Log-probabilities of what cannot happen: JSON has no infinity.
MIN_LOGPROB = -9999.0


class Shape(Protocol):
    """The way in which a route writes choices down. ``prompt_field`` holds the prompt in its
    requests."""

    prefix: str  # of reply ids
    whole: str  # "object" of a reply
    part: str  # "object" of a chunk
    prompt_field: str

    def opening(self, choice: int) -> dict[str, Any] | None:
        """Return a chunk's choice before the first token."""

    def grown(self, piece: Piece) -> dict[str, Any] | None:
        """Return a chunk's choice for a piece; None if there is nothing to tell."""

    def collected(self, choice: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Return a reply's choice from all its pieces."""


class Reply:
    """One HTTP reply to one generating request."""

    def __init__(
        self,
        service: Service,
        model: Model,
        request: Sampling,
        jobs: Sequence[Job],
        shape: Shape,
        ignored: Sequence[str],
    ) -> None:
        self._service = service
        self._model = model
        self._jobs = jobs
        self._shape = shape
        self._tally = Tally(jobs, request.n or 1)
        self._stream = bool(request.stream)
        options = request.stream_options
        self._include_usage = bool(options is not None and options.include_usage)
        self._head = {
            "id": f"{shape.prefix}-{secrets.token_hex(16)}",
            "object": shape.part if self._stream else shape.whole,
            "created": int(time.time()),
            "model": model.name,
        }
        self._headers = {IGNORED_HEADER: ", ".join(ignored)} if ignored else {}

    async def respond(self, request: Request) -> Response:
        """Run the request; errors before a stream begins are raised.

        Raises:
            ApiError: it was refused or failed.
        """
        try:
            generation = ServedGeneration(self._service, self._model, self._jobs, request.receive)
        except Exception as exc:
            raise translate(exc, self._shape.prompt_field) from exc
        if self._stream:
            headers = {"cache-control": "no-cache", "x-accel-buffering": "no", **self._headers}
            return StreamingResponse(
                self._events(generation), media_type="text/event-stream", headers=headers
            )
        try:
            return JSONResponse(await self._collect(generation), headers=self._headers)
        except ClientGoneError:
            return Response(status_code=CLIENT_GONE)
        except Exception as exc:
            raise translate(exc, self._shape.prompt_field) from exc
        finally:
            generation.close()

    async def _collect(self, generation: ServedGeneration) -> dict[str, Any]:
        choices: list[list[Piece]] = [[] for _ in self._jobs]
        async for piece in generation.pieces():
            choices[piece.choice].append(piece)
            self._tally.add(piece)
        return {
            **self._head,
            "choices": [self._shape.collected(i, pieces) for i, pieces in enumerate(choices)],
            "usage": self._tally.usage(),
            "timings": self._tally.timings(),
        }

    async def _events(self, generation: ServedGeneration) -> AsyncGenerator[bytes]:
        try:
            for choice in range(len(self._jobs)):
                if (opening := self._shape.opening(choice)) is not None:
                    yield self._chunk([opening])
            async for piece in generation.pieces():
                self._tally.add(piece)
                if (grown := self._shape.grown(piece)) is not None:
                    last = {"timings": self._tally.timings()} if self._tally.complete else {}
                    yield self._chunk([grown], **last)
            if self._include_usage:
                yield self._chunk([], usage=self._tally.usage())
            yield b"data: [DONE]\n\n"
        except ClientGoneError:
            return
        except Exception as exc:
            error = translate(exc, self._shape.prompt_field)
            yield b"event: error\n" + _event(error.body())
        finally:
            generation.close()

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        usage = {"usage": None} if self._include_usage else {}
        return _event({**self._head, "choices": choices, **usage, **more})


def _event(data: dict[str, Any]) -> bytes:
    # ASCII: some clients end lines at U+2028 and its like, which JSON allows inside strings.
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def sampling_jobs(
    model: Model,
    request: Sampling,
    prompts: Sequence[Sequence[int]],
    *,
    answers: bool = False,
    **overrides: Any,
) -> list[Job]:
    """Return the jobs of ``n`` answers to each prompt. ``overrides``: sampling parameters for which
    the route has fields of its own; None is "not given"."""
    given = {name: value for name, value in overrides.items() if value is not None}
    params = model.default_params(**(request.sampling() | given))
    return jobs_of(model.tokenizer, prompts, params, request.n, answers=answers)


def token_name(tokenizer: Tokenizer, token: int) -> tuple[str, bytes]:
    """Return a token as text, and its bytes. Part of a character is ``bytes:\\xe2\\x82``."""
    data = tokenizer.token_bytes(token)
    try:
        return data.decode(), data
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data), data


def finite(logprob: float) -> float:
    return max(logprob, MIN_LOGPROB)


def top_of(logprobs: TokenLogprobs) -> Iterator[tuple[int, float]]:
    """Return the likeliest ids, with log-probabilities that JSON can carry."""
    return ((token, finite(logprob)) for token, logprob in logprobs.top)
