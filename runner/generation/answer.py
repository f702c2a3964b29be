"""One answer: from the events of its request to the pieces of its text.

Tokens become text, control tokens go to the parser or nowhere, the text ends before a stop string,
and the figures count what was sampled until then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from edge_llm.runner.engine.events import Event, FinishEvent, FinishReason, PromptEvent, TokenEvent
from edge_llm.runner.engine.statistics import RequestStatistics
from edge_llm.runner.executor import TokenLogprobs
from edge_llm.runner.generation.stops import StopScanner


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer.

    Attributes:
        text: the next characters; may be empty, since half a character, or what may become a stop
            string, is held back.
        token_ids: the tokens whose text begins in ``text`` or was empty.
        logprobs: one entry for each of ``token_ids``, if asked for.
        finish_reason: "stop" or "length" in the last piece of an answer, else None.
        stats: the figures of the answer, in its last piece.
        prompt_logprobs: if asked for, in a piece before the first token: one entry for each token
            of the prompt, None for the first.
        choice: which answer this is a part of, where there are several: the prompts one after
            the other, ``n`` answers each.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] | None = None
    finish_reason: str | None = None
    stats: RequestStatistics | None = None
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer: ``token_ids`` and ``logprobs`` end where the text ends, while
    ``stats.completion_tokens`` counts the tokens of a stop string too."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] | None
    finish_reason: str
    stats: RequestStatistics
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None


class Decoder(Protocol):
    """Turns the tokens of one answer into text. A control token has none."""

    def push(self, token_id: int) -> str:
        """Return the text that the next token settles."""

    def special(self, token_id: int) -> str | None:
        """Return how a control token is written, None for other tokens."""

    def finish(self) -> str:
        """Return what half a character becomes whose end does not come. Text may follow."""


class Parser(Protocol):
    """Decides what one answer shows. It sees all text and every control token, in order."""

    def text(self, text: str) -> str:
        """Return what to show after the next characters."""

    def special(self, token_id: int, text: str) -> str:
        """Return what to show after a control token that is written ``text``."""

    def finish(self) -> str:
        """Return what was held back, at the end of the answer."""


class ShowSpecials:
    """A parser that shows control tokens as they are written."""

    def text(self, text: str) -> str:
        """Return the text."""
        return text

    def special(self, token_id: int, text: str) -> str:
        """Return how the token is written."""
        return text

    def finish(self) -> str:
        """Return nothing: nothing was held back."""
        return ""


class Answer:
    """The state of one answer: what it has said so far, and what is held back."""

    def __init__(
        self, choice: int, decoder: Decoder, parser: Parser | None, scanner: StopScanner
    ) -> None:
        self._choice = choice
        self._decoder = decoder
        self._parser = parser
        self._scanner = scanner
        self._sampled = 0
        self._scanned = 0  # characters that went into the scanner
        self._settled = 0  # characters that came out
        # Tokens that wait for their text to settle, and where it begins.
        self._waiting: deque[tuple[int, int, TokenLogprobs | None]] = deque()

    @property
    def stopped(self) -> bool:
        """True once a stop string was seen: no more tokens are needed."""
        return self._scanner.stopped

    def take(self, event: Event) -> Piece | None:
        """Return what an event settles; None for a token that was sampled after the end."""
        match event:
            case TokenEvent(token, logprobs):
                return None if self.stopped else self._token(token, logprobs)
            case FinishEvent(reason, stats):
                return self._finish(reason, stats)
            case PromptEvent(logprobs=scores):
                return Piece("", prompt_logprobs=scores, choice=self._choice)
            case _:
                raise AssertionError(f"an answer has no {type(event).__name__}")

    def _token(self, token: int, logprobs: TokenLogprobs | None) -> Piece:
        self._sampled += 1
        self._waiting.append((self._scanned, token, logprobs))
        parser = self._parser
        if parser is None:
            text = self._decoder.push(token)
        elif (special := self._decoder.special(token)) is not None:
            # Half a character before it belongs to the text before it.
            text = parser.text(self._decoder.finish()) + parser.special(token, special)
        else:
            text = parser.text(self._decoder.push(token))
        return self._piece(self._scan(text))

    def _finish(self, reason: FinishReason, stats: RequestStatistics) -> Piece:
        text = self._decoder.finish()
        if self._parser is not None:
            text = self._parser.text(text) + self._parser.finish()
        text = self._scan(text)
        if not self.stopped:
            text += self._scanner.finish()
        return self._piece(
            text,
            last=not self.stopped,
            finish_reason="stop" if self.stopped else reason,
            stats=replace(stats, completion_tokens=self._sampled),
        )

    def _scan(self, text: str) -> str:
        self._scanned += len(text)
        return self._scanner.push(text)

    def _piece(
        self,
        text: str,
        *,
        last: bool = False,
        finish_reason: FinishReason | None = None,
        stats: RequestStatistics | None = None,
    ) -> Piece:
        """Return a piece of ``text`` with the tokens that begin in it; all, if it is the last."""
        self._settled += len(text)
        tokens: list[int] = []
        logprobs: list[TokenLogprobs] = []
        waiting = self._waiting
        while waiting and (last or waiting[0][0] < self._settled):
            _, token, scores = waiting.popleft()
            tokens.append(token)
            if scores is not None:
                logprobs.append(scores)
        return Piece(
            text,
            tuple(tokens),
            tuple(logprobs) if logprobs else None,
            finish_reason,
            stats,
            choice=self._choice,
        )


def joined(pieces: Iterable[Piece]) -> Completion:
    """Return the whole of an answer from all its pieces."""
    text: list[str] = []
    token_ids: list[int] = []
    logprobs: list[TokenLogprobs] | None = None
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    for piece in pieces:
        text.append(piece.text)
        token_ids.extend(piece.token_ids)
        if piece.logprobs is not None:
            logprobs = logprobs or []
            logprobs.extend(piece.logprobs)
        if piece.prompt_logprobs is not None:
            prompt_logprobs = piece.prompt_logprobs
        if piece.finish_reason is not None and piece.stats is not None:
            return Completion(
                "".join(text),
                tuple(token_ids),
                None if logprobs is None else tuple(logprobs),
                piece.finish_reason,
                piece.stats,
                prompt_logprobs,
            )
    raise AssertionError("an answer ends with a piece that says why")
