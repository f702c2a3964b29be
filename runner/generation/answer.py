"""One answer: from the events of its request to the pieces of its text.

Tokens become text, control tokens go to the parser or nowhere, the content ends before a stop
string, and the figures count what was sampled until then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Protocol

from edge_llm.parsed import Parsed, Parser, ToolCall, ToolCallDelta, whole_calls
from edge_llm.runner.context import ContextReport
from edge_llm.runner.engine.events import Event, FinishEvent, FinishReason, PromptEvent, TokenEvent
from edge_llm.runner.engine.statistics import RequestStatistics
from edge_llm.runner.executor import TokenLogprobs
from edge_llm.runner.generation.stops import StopScanner


@dataclass(frozen=True, slots=True, repr=False)
class Piece:
    """A part of an answer.

    Attributes:
        text: the next characters of the content; may be empty, since half a character, or what may
            become a stop string, is held back.
        token_ids: the tokens whose text begins in ``text`` or was empty.
        logprobs: one entry for each of ``token_ids``, if asked for.
        finish_reason: "stop", "length" or "tool_calls" (it ended by itself and has calls) in the
            last piece of an answer, else None.
        stats: the figures of the answer, in its last piece.
        prompt_logprobs: if asked for, in a piece before the first token: one entry for each token
            of the prompt, None for the first.
        choice: which answer this is a part of, where there are several: the prompts one after
            the other, ``n`` answers each.
        reasoning: the next characters of a thinking block, which come before ``text``.
        tool_calls: parts of tool calls, which come after ``text``.
        stop: the stop string that ended the answer, in its last piece.
        asides: which of ``token_ids`` are of thinking or calls; empty if none is.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] | None = None
    finish_reason: str | None = None
    stats: RequestStatistics | None = None
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    choice: int = 0
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    stop: str | None = None
    asides: tuple[bool, ...] = ()

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        rest = "" if self.finish_reason is None else f", {self.finish_reason}"
        return f"<Piece {_short(self.text)}{rest}>"

    def scored(self) -> Iterator[tuple[int, TokenLogprobs]]:
        """Yield the tokens of the content with their log-probabilities, if asked for."""
        asides = self.asides or repeat(False)
        for token, scores, aside in zip(self.token_ids, self.logprobs or (), asides, strict=False):
            if not aside:
                yield token, scores


@dataclass(frozen=True, slots=True, repr=False)
class Completion:
    """A whole answer: content, reasoning and tool calls. ``token_ids`` and ``logprobs`` end where
    the text ends, while ``stats.completion_tokens`` counts the tokens of a stop string too."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] | None
    finish_reason: str
    stats: RequestStatistics
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        calls = "".join(f", {call.name}(...)" for call in self.tool_calls)
        tokens = self.stats.completion_tokens
        return f"<Completion {_short(self.text)}{calls}, {tokens} tokens, {self.finish_reason}>"


def _short(text: str) -> str:
    """Return a text for a repr, cut to a line."""
    return repr(text) if len(text) <= 60 else f"{text[:57]!r}..."


class Decoder(Protocol):
    """Turns the tokens of one answer into text. A control token has none."""

    def push(self, token_id: int) -> str:
        """Return the text that the next token settles."""

    def special(self, token_id: int) -> str | None:
        """Return how a control token is written, None for other tokens."""

    def finish(self) -> str:
        """Return what half a character becomes whose end does not come. Text may follow."""


class ShowSpecials:
    """A parser for which all is content, control tokens as they are written included."""

    reasoning = False
    aside = False

    def text(self, text: str) -> Parsed:
        """Return the text."""
        return Parsed(text)

    def special(self, token_id: int, text: str) -> Parsed:
        """Return how the token is written."""
        return Parsed(text)

    def finish(self) -> Parsed:
        """Return nothing: nothing was held back."""
        return NOTHING


NOTHING = Parsed()


@dataclass(slots=True)
class _Waiting:
    """A token that waits for its text to settle: where that begins, and whether it is no content
    (see `Parser.aside`)."""

    place: int
    token: int
    logprobs: TokenLogprobs | None
    aside: bool = False


class Answer:
    """The state of one answer: what it has said so far, and what is held back."""

    def __init__(
        self,
        choice: int,
        decoder: Decoder,
        parser: Parser | None,
        scanner: StopScanner,
        min_tokens: int = 0,
        report: ContextReport | None = None,
    ) -> None:
        """Begin an answer in whose first ``min_tokens`` tokens nothing is a stop string; ``report``
        says what was left out of its prompt."""
        self._choice = choice
        self._decoder = decoder
        self._parser = parser
        self._scanner = scanner
        self._min_tokens = min_tokens
        self._report = report
        self._sampled = 0
        self._reasoned = 0  # tokens of thinking blocks, with the marks that end them
        self._called = False
        self._scanned = 0  # characters that went into the scanner
        self._settled = 0  # characters that came out
        self._waiting: deque[_Waiting] = deque()

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
        self._waiting.append(_Waiting(self._scanned, token, logprobs))
        parser = self._parser
        if parser is None:
            return self._piece(Parsed(self._scan(self._decoder.push(token))))
        self._reasoned += parser.reasoning
        aside = parser.aside
        if (special := self._decoder.special(token)) is not None:
            # Half a character before it belongs to the text before it.
            parsed = _parse(parser, self._decoder.finish()) + parser.special(token, special)
        else:
            parsed = _parse(parser, self._decoder.push(token))
        if (aside or parser.aside) and not parsed.content:
            self._set_aside()
        return self._piece(self._scanned_part(parsed))

    def _set_aside(self) -> None:
        """Note of the last tokens, no text of which was content, that none will be."""
        for waiting in reversed(self._waiting):
            if waiting.place < self._scanned or waiting.aside:
                break
            waiting.aside = True

    def _finish(self, reason: FinishReason, stats: RequestStatistics) -> Piece:
        text = self._decoder.finish()
        parsed = Parsed(text)
        if self._parser is not None:
            parsed = _parse(self._parser, text) + self._parser.finish()
        parsed = self._scanned_part(parsed)
        if not self.stopped:
            parsed = replace(parsed, content=parsed.content + self._scanner.finish())
        called = self._called or bool(parsed.tool_calls)
        why: str = reason
        if self.stopped:  # whatever the engine came to in the meantime
            why = "stop"
        elif called and reason == "stop":
            why = "tool_calls"
        return self._piece(
            parsed,
            last=not self.stopped,
            finish_reason=why,
            stats=replace(
                stats,
                completion_tokens=self._sampled,
                reasoning_tokens=self._reasoned,
                context=_sum(self._report, stats.context),
            ),
        )

    def _scanned_part(self, parsed: Parsed) -> Parsed:
        """Return what a parser told, with its content cut before a stop string; nothing follows
        one."""
        if parsed.content:
            parsed = replace(parsed, content=self._scan(parsed.content))
        return replace(parsed, tool_calls=()) if self.stopped else parsed

    def _scan(self, text: str) -> str:
        self._scanned += len(text)
        return text if self._sampled <= self._min_tokens else self._scanner.push(text)

    def _piece(
        self,
        parsed: Parsed,
        *,
        last: bool = False,
        finish_reason: str | None = None,
        stats: RequestStatistics | None = None,
    ) -> Piece:
        """Return a piece of what was parsed, with the tokens that begin in its content; all, if it
        is the last."""
        self._called = self._called or bool(parsed.tool_calls)
        self._settled += len(parsed.content)
        tokens: list[int] = []
        logprobs: list[TokenLogprobs] = []
        asides: list[bool] = []
        waiting = self._waiting
        while waiting and (last or waiting[0].place < self._settled):
            next_ = waiting.popleft()
            tokens.append(next_.token)
            asides.append(next_.aside)
            if next_.logprobs is not None:
                logprobs.append(next_.logprobs)
        return Piece(
            parsed.content,
            tuple(tokens),
            tuple(logprobs) if logprobs else None,
            finish_reason,
            stats,
            choice=self._choice,
            reasoning=parsed.reasoning,
            tool_calls=parsed.tool_calls,
            stop=self._scanner.stop if finish_reason else None,
            asides=tuple(asides) if any(asides) else (),
        )


def _sum(one: ContextReport | None, other: ContextReport | None) -> ContextReport | None:
    if one is None or other is None:
        return one or other
    return one + other


def _parse(parser: Parser, text: str) -> Parsed:
    return parser.text(text) if text else NOTHING


def joined(pieces: Iterable[Piece]) -> Completion:
    """Return the whole of an answer from all its pieces."""
    text: list[str] = []
    reasoning: list[str] = []
    calls: list[ToolCallDelta] = []
    token_ids: list[int] = []
    logprobs: list[TokenLogprobs] | None = None
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    for piece in pieces:
        text.append(piece.text)
        reasoning.append(piece.reasoning)
        calls.extend(piece.tool_calls)
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
                "".join(reasoning),
                whole_calls(calls),
            )
    raise AssertionError("an answer ends with a piece that says why")
