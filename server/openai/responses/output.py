"""The output items of a response as they grow, and the events that tell of it.

An answer is one item after the other: a thinking block, a message, calls. Each writer here makes
one item. A whole reply takes the same way; it only drops the events.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol

from edge_llm.parsed import ToolCallDelta
from edge_llm.runner.generation.answer import Piece
from edge_llm.server.openai.responses.conversation import new_id, sealed

Event = dict[str, Any]  # without its sequence_number
Logprobs = list[dict[str, Any]]
Status = Literal["completed", "incomplete"]


class ItemWriter(Protocol):
    """Writes one item; ``item`` is its state so far."""

    item: dict[str, Any]

    def open(self) -> Iterator[Event]:
        """Yield what tells that it begins, within the item."""

    def close(self) -> Iterator[Event]:
        """Yield what tells that it is whole, within the item, and bring ``item`` up to date."""


class Output:
    """All items of one answer.

    Args:
        logprobs: makes the entries of a piece's tokens.
        summary: what was thought is told as the summary of the thinking, else as its content.
        encrypted: thinking blocks have ``encrypted_content``.
        instance: what the ids of items begin with.
    """

    def __init__(
        self,
        logprobs: Callable[[Piece], Logprobs],
        *,
        summary: bool,
        encrypted: bool,
        instance: str = "",
    ) -> None:
        self._logprobs = logprobs
        self._instance = instance
        self._summary = summary
        self._encrypted = encrypted
        self._writers: list[ItemWriter] = []
        self._call: int | None = None  # the one that is being written
        self._open = False

    @property
    def items(self) -> list[dict[str, Any]]:
        """The items so far."""
        return [writer.item for writer in self._writers]

    def grow(self, piece: Piece) -> Iterator[Event]:
        """Yield what a piece tells."""
        if piece.reasoning:
            yield from self._reasoning(piece.reasoning)
        logprobs = self._logprobs(piece)
        if piece.text or (logprobs and isinstance(self._current(), MessageWriter)):
            yield from self._text(piece.text, logprobs)
        for delta in piece.tool_calls:
            yield from self._tool_call(delta)

    def finish(self, status: Status) -> Iterator[Event]:
        """Yield the end of the last item. An answer that ended by itself has at least a message."""
        if status == "completed" and all(item["type"] == "reasoning" for item in self.items):
            yield from self._begin(MessageWriter(self._index + 1, self._id("message")))
        yield from self._end(status)

    @property
    def _index(self) -> int:
        return len(self._writers) - 1

    def _reasoning(self, text: str) -> Iterator[Event]:
        writer = self._current()
        if not isinstance(writer, ReasoningWriter):
            writer = ReasoningWriter(
                self._index + 1,
                self._id("reasoning"),
                summary=self._summary,
                encrypted=self._encrypted,
            )
            yield from self._begin(writer)
        yield writer.add(text)

    def _text(self, text: str, logprobs: Logprobs) -> Iterator[Event]:
        writer = self._current()
        if not isinstance(writer, MessageWriter):
            writer = MessageWriter(self._index + 1, self._id("message"))
            yield from self._begin(writer)
        yield writer.add(text, logprobs)

    def _tool_call(self, delta: ToolCallDelta) -> Iterator[Event]:
        writer = self._current()
        if not isinstance(writer, CallWriter) or delta.index != self._call:
            writer = CallWriter(self._index + 1, self._id("function_call"), delta.name or "")
            self._call = delta.index
            yield from self._begin(writer)
        if delta.arguments:
            yield writer.add(delta.arguments)

    def _id(self, kind: str) -> str:
        return new_id(kind, self._instance)

    def _current(self) -> ItemWriter | None:
        return self._writers[-1] if self._open else None

    def _begin(self, writer: ItemWriter) -> Iterator[Event]:
        yield from self._end("completed")
        self._writers.append(writer)
        self._open = True
        yield self._item_event("added")
        yield from writer.open()

    def _end(self, status: Status) -> Iterator[Event]:
        if not self._open:
            return
        writer = self._writers[-1]
        yield from writer.close()
        writer.item["status"] = status
        self._open = False
        yield self._item_event("done")

    def _item_event(self, what: str) -> Event:
        return {
            "type": f"response.output_item.{what}",
            "output_index": self._index,
            "item": dict(self._writers[-1].item),
        }


class MessageWriter:
    """Writes what is said; see `ItemWriter`."""

    def __init__(self, index: int, item_id: str) -> None:
        self._parts: list[str] = []
        self._logprobs: Logprobs = []
        self.item: dict[str, Any] = {
            "id": item_id,
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        self._place = {"item_id": self.item["id"], "output_index": index, "content_index": 0}

    def open(self) -> Iterator[Event]:
        yield {"type": "response.content_part.added", **self._place, "part": self._part()}

    def add(self, text: str, logprobs: Logprobs) -> Event:
        """Return what tells of more text."""
        self._parts.append(text)
        self._logprobs += logprobs
        return {
            "type": "response.output_text.delta",
            **self._place,
            "delta": text,
            "logprobs": logprobs,
        }

    def close(self) -> Iterator[Event]:
        part = self._part()
        yield {
            "type": "response.output_text.done",
            **self._place,
            "text": part["text"],
            "logprobs": self._logprobs,
        }
        yield {"type": "response.content_part.done", **self._place, "part": part}
        self.item["content"] = [part]

    def _part(self) -> dict[str, Any]:
        return {
            "type": "output_text",
            "text": "".join(self._parts),
            "annotations": [],
            "logprobs": list(self._logprobs),
        }


class ReasoningWriter:
    """Writes what is thought, as content or as the summary; see `ItemWriter`."""

    def __init__(self, index: int, item_id: str, *, summary: bool, encrypted: bool) -> None:
        self._parts: list[str] = []
        self._encrypted = encrypted
        self.item: dict[str, Any] = {
            "id": item_id,
            "type": "reasoning",
            "status": "in_progress",
            "summary": [],
        }
        place = {"item_id": self.item["id"], "output_index": index}
        if summary:
            self._kind, self._list, self._events = "summary_text", "summary", "reasoning_summary"
            self._place = {**place, "summary_index": 0}
            self._part_events = "response.reasoning_summary_part"
        else:
            self._kind, self._list, self._events = "reasoning_text", "content", "reasoning"
            self._place = {**place, "content_index": 0}
            self._part_events = "response.content_part"

    def open(self) -> Iterator[Event]:
        yield {"type": f"{self._part_events}.added", **self._place, "part": self._part()}

    def add(self, text: str) -> Event:
        """Return what tells of more text."""
        self._parts.append(text)
        return {"type": f"response.{self._events}_text.delta", **self._place, "delta": text}

    def close(self) -> Iterator[Event]:
        part = self._part()
        yield {
            "type": f"response.{self._events}_text.done",
            **self._place,
            "text": part["text"],
        }
        yield {"type": f"{self._part_events}.done", **self._place, "part": part}
        self.item[self._list] = [part]
        if self._encrypted:
            self.item["encrypted_content"] = sealed(part["text"])

    def _part(self) -> dict[str, Any]:
        return {"type": self._kind, "text": "".join(self._parts)}


class CallWriter:
    """Writes one call; see `ItemWriter`."""

    def __init__(self, index: int, item_id: str, name: str) -> None:
        self._parts: list[str] = []
        self.item: dict[str, Any] = {
            "id": item_id,
            "type": "function_call",
            "status": "in_progress",
            "call_id": f"call_{secrets.token_hex(12)}",
            "name": name,
            "arguments": "",
        }
        self._place = {"item_id": self.item["id"], "output_index": index}

    def open(self) -> Iterator[Event]:
        return iter(())

    def add(self, text: str) -> Event:
        """Return what tells of more arguments."""
        self._parts.append(text)
        return {"type": "response.function_call_arguments.delta", **self._place, "delta": text}

    def close(self) -> Iterator[Event]:
        arguments = "".join(self._parts)
        yield {
            "type": "response.function_call_arguments.done",
            **self._place,
            "name": self.item["name"],
            "arguments": arguments,
        }
        self.item["arguments"] = arguments
