"""What an answer is made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edge_llm.runner.executor import TokenLogprobs
from edge_llm.runner.statistics import RequestStatistics


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer. ``text`` may be empty: half a character, or what may become a stop
    string, is held back. ``logprobs`` goes with ``token_ids``, if asked for. The last piece of a
    stream has a ``finish_reason`` ("stop" or "length") and ``stats``. ``prompt_logprobs``, if asked
    for, come in a piece before the first token's: one entry a prompt token, the first None."""

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] | None = None
    finish_reason: str | None = None
    stats: RequestStatistics | None = None
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer. ``token_ids`` may go on past a stop string, ``text`` ends before it."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] | None
    finish_reason: str
    stats: RequestStatistics
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None


def collect(pieces: Iterable[Piece]) -> Completion:
    """The whole answer of a stream that is read to its end."""
    texts: list[str] = []
    ids: list[int] = []
    logprobs: list[TokenLogprobs] | None = None
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    for piece in pieces:
        texts.append(piece.text)
        ids.extend(piece.token_ids)
        if piece.logprobs is not None:
            logprobs = [*(logprobs or ()), *piece.logprobs]
        if piece.prompt_logprobs is not None:
            prompt_logprobs = piece.prompt_logprobs
        if piece.finish_reason is not None and piece.stats is not None:
            return Completion(
                "".join(texts),
                tuple(ids),
                None if logprobs is None else tuple(logprobs),
                piece.finish_reason,
                piece.stats,
                prompt_logprobs,
            )
    raise AssertionError("a stream ends with a piece that says why")
