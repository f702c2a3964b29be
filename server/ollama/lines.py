"""Replies of the generating Ollama routes: lines of JSON, or one object."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from edge_llm.parsed import ToolCallDelta, whole_calls
from edge_llm.runner.executor import TokenLogprobs
from edge_llm.runner.generation.answer import Piece
from edge_llm.server.arguments import arguments_object
from edge_llm.server.errors import ApiError, error_body
from edge_llm.server.openai.choices import finite, token_name, top_of
from edge_llm.server.reply import encoded
from edge_llm.server.tally import Tally
from edge_llm.tokenizers.tokenizer import Tokenizer

Line = dict[str, Any]
Kind = Literal["chat", "generate"]


class LineShape:
    """Writes one answer as lines; see `edge_llm.server.reply.Shape`. Calls are told whole."""

    media_type = "application/x-ndjson"

    def __init__(self, kind: Kind, *, model: str, tokenizer: Tokenizer, logprobs: bool) -> None:
        self._chat = kind == "chat"
        self._model = model
        self._tokenizer = tokenizer
        self._logprobs = logprobs
        self._calls: list[ToolCallDelta] = []  # of the call that is being written
        self._told = 0  # calls
        self._last: Piece | None = None

    def begin(self) -> Iterable[bytes]:
        return ()

    def piece(self, piece: Piece, tally: Tally) -> Iterable[bytes]:
        self._last = piece
        ended: list[ToolCallDelta] = []
        for delta in piece.tool_calls:
            if self._calls and self._calls[0].index != delta.index:
                ended, self._calls = [*ended, *self._calls], []
            self._calls.append(delta)
        logprobs = self._scores([piece])
        if piece.text or piece.reasoning or ended or logprobs.get("logprobs"):
            said = self._said(piece.text, piece.reasoning, ended)
            yield _line({**self._head(), **said, "done": False, **logprobs})

    def end(self, tally: Tally) -> Iterable[bytes]:
        if self._calls:
            yield _line({**self._head(), **self._said(calls=self._calls), "done": False})
        yield _line({**self._head(), **self._said(), **self._ending(tally)})

    def failed(self, error: ApiError) -> bytes:
        return _line(error_body(error, "/api/"))

    def collected(self, choices: Sequence[Sequence[Piece]], tally: Tally) -> Line:
        (pieces,) = choices
        self._last = pieces[-1]
        said = self._said(
            "".join(piece.text for piece in pieces),
            "".join(piece.reasoning for piece in pieces),
            [delta for piece in pieces for delta in piece.tool_calls],
        )
        return {**self._head(), **said, **self._ending(tally), **self._scores(pieces)}

    def _head(self) -> Line:
        return _head(self._model)

    def _said(
        self, text: str = "", reasoning: str = "", calls: Sequence[ToolCallDelta] = ()
    ) -> Line:
        """Return a part of the answer, where a line has it."""
        thinking = {"thinking": reasoning} if reasoning else {}
        tool_calls = {}
        if calls:
            tool_calls = {"tool_calls": [self._call(*call) for call in _named(calls)]}
        return _said(self._chat, text, **thinking, **tool_calls)

    def _call(self, name: str, arguments: str) -> Line:
        self._told += 1
        return {
            "id": f"call_{secrets.token_hex(12)}",
            "function": {
                "index": self._told - 1,
                "name": name,
                "arguments": arguments_object(arguments),
            },
        }

    def _ending(self, tally: Tally) -> Line:
        """Return why the answer ended and what it took, in nanoseconds."""
        assert self._last is not None
        stats = self._last.stats
        assert stats is not None
        usage = tally.usage()
        whole = stats.queue_seconds + stats.prefill_seconds + stats.decode_seconds
        return {
            "done": True,
            "done_reason": "length" if self._last.finish_reason == "length" else "stop",
            "total_duration": nanoseconds(whole),
            "load_duration": 0,
            "prompt_eval_count": usage["prompt_tokens"],
            "prompt_eval_duration": nanoseconds(stats.prefill_seconds),
            "eval_count": usage["completion_tokens"],
            "eval_duration": nanoseconds(stats.decode_seconds),
            **tally.context(),
        }

    def _scores(self, pieces: Iterable[Piece]) -> Line:
        if not self._logprobs:
            return {}
        return {
            "logprobs": [
                self._entry(token, scores) for piece in pieces for token, scores in piece.scored()
            ]
        }

    def _entry(self, token: int, logprobs: TokenLogprobs) -> Line:
        top = [self._token(other, logprob) for other, logprob in top_of(logprobs)]
        return {**self._token(token, finite(logprobs.logprob)), "top_logprobs": top}

    def _token(self, token: int, logprob: float) -> Line:
        text, data = token_name(self._tokenizer, token)
        return {"token": text, "logprob": logprob, "bytes": list(data)}


def nothing(kind: Kind, model: str, reason: Literal["load", "unload"]) -> Line:
    """Return the reply to a request that asks for no answer, and what was done instead."""
    return {**_head(model), **_said(kind == "chat"), "done": True, "done_reason": reason}


def _head(model: str) -> Line:
    return {"model": model, "created_at": now()}


def _said(chat: bool, text: str = "", **beside: Any) -> Line:
    if chat:
        return {"message": {"role": "assistant", "content": text, **beside}}
    return {"response": text, **beside}


def now() -> str:
    """Return the time, as RFC 3339 has it."""
    return timestamp(datetime.now(UTC))


def timestamp(moment: datetime) -> str:
    """Return a moment in UTC, as RFC 3339 has it."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _named(deltas: Sequence[ToolCallDelta]) -> Iterable[tuple[str, str]]:
    return ((call.name, call.arguments) for call in whole_calls(list(deltas)))


def _line(data: Line) -> bytes:
    return encoded(data) + b"\n"
