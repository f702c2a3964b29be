"""Replies of ``/v1/messages``: blocks of thinking, text and calls, streamed or whole."""

from __future__ import annotations

import hashlib
import secrets
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from edge_llm.parsed import ToolCallDelta
from edge_llm.runner.generation.answer import Piece
from edge_llm.server.arguments import arguments_object
from edge_llm.server.errors import ApiError, error_body
from edge_llm.server.reply import event
from edge_llm.server.tally import Tally

Event = dict[str, Any]

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
# The path of the routes, for the body of an error.
PATH = "/v1/messages"


class MessageShape:
    """Writes one answer as a message of blocks; see `edge_llm.server.reply.Shape`."""

    media_type = "text/event-stream"

    def __init__(
        self, *, model: str, prompt_tokens: int, request_id: str, show_thinking: bool
    ) -> None:
        """Begin a message. ``show_thinking``: blocks of thinking have their text."""
        self._request_id = request_id
        self._message: Event = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(prompt_tokens, 0, 0, 0),
        }
        self._blocks = BlockWriter(show_thinking=show_thinking)
        self._last: Piece | None = None

    def begin(self) -> Iterable[bytes]:
        yield _event({"type": "message_start", "message": self._message})
        yield _event({"type": "ping"})

    def piece(self, piece: Piece, tally: Tally) -> Iterable[bytes]:
        self._last = piece
        return map(_event, self._blocks.grown(piece))

    def end(self, tally: Tally) -> Iterable[bytes]:
        yield from map(_event, self._blocks.close())
        delta, usage = self._ending(tally)
        told = tally.context()
        yield _event({"type": "message_delta", "delta": delta, "usage": usage, **told})
        yield _event({"type": "message_stop"})

    def failed(self, error: ApiError) -> bytes:
        return _event(error_body(error, PATH, self._request_id))

    def collected(self, choices: Sequence[Sequence[Piece]], tally: Tally) -> Event:
        (pieces,) = choices
        self._last = pieces[-1]
        events = [event for piece in pieces for event in self._blocks.grown(piece)]
        content = _joined([*events, *self._blocks.close()])
        ending, usage = self._ending(tally)
        return {**self._message, "content": content, **ending, "usage": usage, **tally.context()}

    def _ending(self, tally: Tally) -> tuple[Event, Event]:
        """Return why the answer ended, and its cost."""
        assert self._last is not None
        usage = tally.usage()
        stop = self._last.stop
        reason = _STOP_REASONS[self._last.finish_reason or "stop"]
        return (
            {"stop_reason": reason if stop is None else "stop_sequence", "stop_sequence": stop},
            _usage(
                usage["prompt_tokens"],
                usage["prompt_tokens_details"]["cached_tokens"],
                usage["completion_tokens"],
                usage["completion_tokens_details"]["reasoning_tokens"],
            ),
        )


class BlockWriter:
    """Turns pieces into the events of blocks, one open at a time."""

    def __init__(self, *, show_thinking: bool) -> None:
        self._show_thinking = show_thinking
        self._index = -1
        self._open: str | None = None  # its type
        self._call: int | None = None  # which one an open block is of
        self._digest = hashlib.sha256()

    def grown(self, piece: Piece) -> Iterator[Event]:
        """Yield the events of a piece."""
        if piece.reasoning:
            yield from self._enter("thinking", {"thinking": "", "signature": ""})
            self._digest.update(piece.reasoning.encode())
            if self._show_thinking:
                yield self._delta("thinking_delta", thinking=piece.reasoning)
        if piece.text:
            yield from self._enter("text", {"text": ""})
            yield self._delta("text_delta", text=piece.text)
        for delta in piece.tool_calls:
            yield from self._called(delta)

    def close(self) -> Iterator[Event]:
        """Yield the events that end the open block."""
        if self._open is None:
            return
        if self._open == "thinking":
            # Clients send it back with the text; nothing here depends on it.
            signature = b64encode(self._digest.digest()).decode()
            yield self._delta("signature_delta", signature=signature)
            self._digest = hashlib.sha256()
        yield {"type": "content_block_stop", "index": self._index}
        self._open = self._call = None

    def _called(self, delta: ToolCallDelta) -> Iterator[Event]:
        if self._call != delta.index:
            yield from self.close()
            call = {"id": f"toolu_{secrets.token_hex(12)}", "name": delta.name or "", "input": {}}
            yield from self._enter("tool_use", call)
            self._call = delta.index
        if delta.arguments:
            yield self._delta("input_json_delta", partial_json=delta.arguments)

    def _enter(self, kind: str, block: Event) -> Iterator[Event]:
        """Yield what opens a block of a type that is not open yet."""
        if self._open == kind:
            return
        yield from self.close()
        self._index += 1
        self._open = kind
        yield {
            "type": "content_block_start",
            "index": self._index,
            "content_block": {"type": kind, **block},
        }

    def _delta(self, kind: str, **value: str) -> Event:
        return {
            "type": "content_block_delta",
            "index": self._index,
            "delta": {"type": kind, **value},
        }


def _joined(events: Iterable[Event]) -> list[Event]:
    """Return the blocks that some events make."""
    blocks: list[Event] = []
    arguments: dict[int, list[str]] = {}
    for item in events:
        match item["type"]:
            case "content_block_start":
                blocks.append(dict(item["content_block"]))
            case "content_block_delta":
                for name, value in item["delta"].items():
                    if name == "partial_json":
                        arguments.setdefault(item["index"], []).append(value)
                    elif name != "type":
                        blocks[-1][name] += value
    for index, parts in arguments.items():
        blocks[index]["input"] = arguments_object("".join(parts))
    return blocks


def _usage(prompt: int, cached: int, answer: int, thinking: int) -> Event:
    """Return the cost of a message. Tokens that the cache had are no input tokens."""
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": answer,
        "output_tokens_details": {"thinking_tokens": thinking},
    }


def _event(data: Event) -> bytes:
    return event(data, data["type"])
