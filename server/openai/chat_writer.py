"""Answers as chat messages: whole, and grown bit by bit."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from edge_llm.parsed import ToolCallDelta
from edge_llm.runner.executor import TokenLogprobs
from edge_llm.runner.generation.answer import Piece, joined
from edge_llm.server.openai.choices import finite, token_name, top_of
from edge_llm.tokenizers.tokenizer import Tokenizer


class ChatWriter:
    """Writes choices as chat messages; see `ChoiceWriter`. ``legacy``: a call is told as the older
    ``function_call``."""

    prefix = "chatcmpl"
    whole = "chat.completion"
    part = "chat.completion.chunk"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool, legacy: bool = False) -> None:
        self._tokenizer = tokenizer
        self._logprobs = logprobs
        self._legacy = legacy

    def opening(self, choice: int) -> dict[str, Any] | None:
        return _chunk_choice(choice, {"role": "assistant", "content": "", "refusal": None})

    def grown(self, piece: Piece) -> Iterable[dict[str, Any]]:
        """Yield reasoning and content together, then each part of a call by itself: clients look at
        the first call of a chunk alone, and take its name and its arguments from different ones."""
        delta: dict[str, Any] = {}
        if piece.reasoning:
            delta["reasoning_content"] = piece.reasoning
        if piece.text:
            delta["content"] = piece.text
        logprobs = self._content_logprobs([piece])
        if not delta and logprobs and logprobs["content"] and not piece.finish_reason:
            delta["content"] = ""
        parts = [delta] if delta else []
        for call in piece.tool_calls:
            parts += self._call_parts(call)
        if piece.finish_reason and (piece.tool_calls or not parts):
            parts.append({})
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            yield _chunk_choice(
                piece.choice,
                part,
                self._finish_reason(piece) if last else None,
                logprobs if index == 0 else None,
            )

    def collected(self, choice: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        answer = joined(pieces)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": answer.text if answer.text or not answer.tool_calls else None,
            "refusal": None,
        }
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        functions = [{"name": call.name, "arguments": call.arguments} for call in answer.tool_calls]
        if functions and self._legacy:
            message["function_call"] = functions[0]
        elif functions:
            message["tool_calls"] = [
                {"id": _call_id(), "type": "function", "function": function}
                for function in functions
            ]
        return {
            "index": choice,
            "message": message,
            "logprobs": self._content_logprobs(pieces),
            "finish_reason": self._finish_reason(pieces[-1]),
        }

    def _call_parts(self, call: ToolCallDelta) -> Iterable[dict[str, Any]]:
        """Yield the deltas of a part of a call: who is called, then with what."""
        if self._legacy:
            if call.name is not None:
                yield {"function_call": {"name": call.name, "arguments": ""}}
            if call.arguments:
                yield {"function_call": {"arguments": call.arguments}}
            return
        if call.name is not None:
            function = {"name": call.name, "arguments": ""}
            begun = {
                "index": call.index,
                "id": _call_id(),
                "type": "function",
                "function": function,
            }
            yield {"tool_calls": [begun]}
        if call.arguments:
            yield {"tool_calls": [{"index": call.index, "function": {"arguments": call.arguments}}]}

    def _finish_reason(self, piece: Piece) -> str | None:
        legacy = self._legacy and piece.finish_reason == "tool_calls"
        return "function_call" if legacy else piece.finish_reason

    def _content_logprobs(self, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        content = [
            self._entry(token, scores) for piece in pieces for token, scores in piece.scored()
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprobs: TokenLogprobs) -> dict[str, Any]:
        top = [self._token(other, logprob) for other, logprob in top_of(logprobs)]
        return {**self._token(token, finite(logprobs.logprob)), "top_logprobs": top}

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        text, data = token_name(self._tokenizer, token)
        return {"token": text, "logprob": logprob, "bytes": list(data)}


def _call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def _chunk_choice(
    index: int,
    delta: dict[str, Any],
    finish_reason: str | None = None,
    logprobs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
