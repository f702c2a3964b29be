"""Replies with choices, as both older OpenAI routes have them: chunks and whole."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from edge_llm.runner.executor import TokenLogprobs
from edge_llm.runner.generation.answer import Piece
from edge_llm.server.errors import ApiError, error_body
from edge_llm.server.models.model import Model
from edge_llm.server.reply import encoded, event
from edge_llm.server.requests.sampling import Generating
from edge_llm.server.tally import Tally
from edge_llm.tokenizers.tokenizer import Tokenizer

# Log-probabilities of what cannot happen: JSON has no infinity.
MIN_LOGPROB = -9999.0


class ChoiceWriter(Protocol):
    """The way in which a route writes its choices."""

    prefix: str  # of reply ids
    whole: str  # "object" of a reply
    part: str  # "object" of a chunk

    def opening(self, choice: int) -> dict[str, Any] | None:
        """Return a chunk's choice before the first token."""

    def grown(self, piece: Piece) -> Iterable[dict[str, Any]]:
        """Yield the choice of each chunk for a piece; none if there is nothing to tell."""

    def collected(self, choice: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Return a reply's choice from all its pieces."""


class Choices:
    """Writes answers as choices; see `edge_llm.server.reply.Shape`."""

    media_type = "text/event-stream"

    def __init__(self, writer: ChoiceWriter, request: Generating, model: Model, count: int) -> None:
        self._writer = writer
        self._count = count
        options = request.stream_options
        self._include_usage = bool(options is not None and options.include_usage)
        self._head = {
            "id": f"{writer.prefix}-{secrets.token_hex(16)}",
            "object": writer.part if request.stream else writer.whole,
            "created": int(time.time()),
            "model": model.name,
            "system_fingerprint": f"fp_{model.digest[:16]}",
        }
        # What all chunks share is written once: there may be a thousand a second.
        self._before = b"data: " + encoded(self._head).removesuffix(b"}") + b',"choices":'
        self._after = b',"usage":null}\n\n' if self._include_usage else b"}\n\n"

    def begin(self) -> Iterable[bytes]:
        for choice in range(self._count):
            if (opening := self._writer.opening(choice)) is not None:
                yield self._before + encoded([opening]) + self._after

    def piece(self, piece: Piece, tally: Tally) -> Iterable[bytes]:
        parts = list(self._writer.grown(piece))
        for index, part in enumerate(parts):
            last = tally.complete and index == len(parts) - 1
            more = b""
            if last:
                told = {"timings": tally.timings(), **tally.context()}
                more = b"," + encoded(told).removeprefix(b"{").removesuffix(b"}")
            yield self._before + encoded([part]) + more + self._after

    def end(self, tally: Tally) -> Iterable[bytes]:
        if self._include_usage:
            yield event({**self._head, "choices": [], "usage": tally.usage()})
        yield b"data: [DONE]\n\n"

    def failed(self, error: ApiError) -> bytes:
        return event(error_body(error), "error")

    def collected(self, choices: Sequence[Sequence[Piece]], tally: Tally) -> dict[str, Any]:
        return {
            **self._head,
            "choices": [self._writer.collected(i, pieces) for i, pieces in enumerate(choices)],
            "usage": tally.usage(),
            "timings": tally.timings(),
            **tally.context(),
        }


def token_name(tokenizer: Tokenizer, token: int) -> tuple[str, bytes]:
    """Return a token as text, and its bytes. Part of a character is ``bytes:\\xe2\\x82``."""
    data = tokenizer.token_bytes(token)
    try:
        return data.decode(), data
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data), data


def finite(logprob: float) -> float:
    """Return a log-probability that JSON can carry."""
    return max(logprob, MIN_LOGPROB)


def top_of(logprobs: TokenLogprobs) -> Iterator[tuple[int, float]]:
    """Return the likeliest ids, with log-probabilities that JSON can carry."""
    return ((token, finite(logprob)) for token, logprob in logprobs.top)
