"""The responses that can be asked for again, or gone on from. They live in memory alone."""

from __future__ import annotations

import json
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_llm.server.openai.responses.conversation import Item

MAX_RESPONSES = 1024
MAX_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Stored:
    """A response, as the client got it, and the items that it answers, those of the responses
    before it included. ``input_size``: the bytes of their JSON text."""

    response: dict[str, Any]
    input: tuple[Item, ...]
    input_size: int

    @property
    def conversation(self) -> tuple[Item, ...]:
        """The items of all turns so far: what a next response begins with."""
        return (*self.input, *self.response["output"])

    @property
    def size(self) -> int:
        """The bytes that it takes. Turns share their items, but the earlier ones may be dropped
        first: each counts them all."""
        return self.input_size + size_of(self.response)


class ResponseStore:
    """Keeps the responses used last, up to a number of them and of bytes of their JSON text.
    Threads may share it."""

    def __init__(self, *, responses: int = MAX_RESPONSES, size: int = MAX_BYTES) -> None:
        self._responses = responses
        self._size = size
        self._used = 0
        self._entries: OrderedDict[str, tuple[Stored, int]] = OrderedDict()
        self._items: dict[str, Item] = {}
        self._uses: Counter[str] = Counter()  # of items, by responses
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, stored: Stored) -> None:
        """Keep a response; those that were not used for longest make room. One that is larger than
        all the room is not kept."""
        size = stored.size
        if size > self._size:
            return
        with self._lock:
            self._entries[stored.response["id"]] = (stored, size)
            self._used += size
            for item in stored.conversation:
                self._items[item["id"]] = item
                self._uses[item["id"]] += 1
            while self._used > self._size or len(self._entries) > self._responses:
                self._forget(next(iter(self._entries)))

    def get(self, response_id: str) -> Stored | None:
        """Return a response, which is used now; None if it is not here."""
        with self._lock:
            if response_id not in self._entries:
                return None
            self._entries.move_to_end(response_id)
            return self._entries[response_id][0]

    def delete(self, response_id: str) -> bool:
        """Forget a response; return whether it was here."""
        with self._lock:
            known = response_id in self._entries
            if known:
                self._forget(response_id)
            return known

    def item(self, item_id: str) -> Item | None:
        """Return an item of any response that is here; None if none has it."""
        with self._lock:
            return self._items.get(item_id)

    def _forget(self, response_id: str) -> None:
        stored, size = self._entries.pop(response_id)
        self._used -= size
        for item in stored.conversation:
            self._uses[item["id"]] -= 1
            if self._uses[item["id"]] <= 0:
                del self._uses[item["id"]]
                self._items.pop(item["id"], None)


def size_of(value: dict[str, Any] | Sequence[Item]) -> int:
    """Return the bytes of a value's JSON text.

    Raises:
        UnicodeEncodeError: it has a lone surrogate, which no text has.
    """
    return len(json.dumps(value, ensure_ascii=False).encode())
