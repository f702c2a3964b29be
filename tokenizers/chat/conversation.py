"""Conversations as templates get them: JSON values alone, with things under the names they read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edge_llm.errors import TemplateError
from edge_llm.tokenizers.chat.bounds import MAX_BITS

MAX_DEPTH = 128  # objects and lists in each other; the server's bodies have 64
MAX_SIZE = 2**26  # characters of a conversation's texts, each value counted as _ITEM more
_ITEM = 64

# Three names of one thing; templates read the first, some the second.
_REASONING = ("reasoning_content", "thinking", "reasoning")


def plain(value: Any) -> Any:
    """Return the value rebuilt from JSON types alone, so that a template can reach no methods but
    theirs.

    Raises:
        TemplateError: something else is in it, it is nested too deeply or too large when it is
            written out, or a whole number is larger than a template may write.
    """
    return _Rebuilder().rebuild(value, 0)


def plain_list(what: str, values: Any) -> list[Any]:
    """Return messages or tools as JSON values.

    Raises:
        TemplateError: they are no list, or not JSON values (see `plain`).
    """
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise TemplateError(f"{what} must be a list, got {type(values).__name__}")
    rebuilder = _Rebuilder()
    return [rebuilder.rebuild(value, 0) for value in values]


class _Rebuilder:
    """Rebuilds values and counts their size: what is held in several places is rebuilt in each, so
    that sixty lists, each of which holds the next one twice, would fill any memory."""

    def __init__(self) -> None:
        self._size = 0

    def rebuild(self, value: Any, depth: int) -> Any:
        self._count(_ITEM)
        if value is None or type(value) in (bool, float):
            return value
        if isinstance(value, str):  # an enum member, for one
            text = str.__str__(value)
            self._count(len(text))
            return text
        if type(value) is int:
            if value.bit_length() > MAX_BITS:
                raise TemplateError(f"a number has {value.bit_length()} bits, expected {MAX_BITS}")
            return value
        if depth == MAX_DEPTH:
            raise TemplateError(f"messages are nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, Mapping):
            return {self._key(key): self.rebuild(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.rebuild(item, depth + 1) for item in value]
        raise TemplateError(f"messages must be JSON values, got {type(value).__name__}")

    def _key(self, key: Any) -> Any:
        """Return the name of an entry; JSON has texts, Python's writer of JSON takes numbers
        too."""
        if isinstance(key, Mapping | list | tuple):
            raise TemplateError(f"names in messages must be texts, got {type(key).__name__}")
        return self.rebuild(key, 0)

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > MAX_SIZE:
            raise TemplateError(
                f"a conversation is larger than {MAX_SIZE} characters, with {_ITEM} for each value"
            )


def with_reasoning(message: Any) -> dict[Any, Any]:
    """Return a message with its reasoning under the names that templates read.

    Raises:
        TemplateError: it is no object.
    """
    if not isinstance(message, dict):
        raise TemplateError(f"a message must be an object, got {type(message).__name__}")
    given = [message[name] for name in _REASONING if message.get(name) is not None]
    return {"thinking": given[0], **message, "reasoning_content": given[0]} if given else message


def with_tools(messages: list[dict[Any, Any]], tools: list[Any]) -> list[dict[Any, Any]]:
    """Return the messages with the tools as JSON text in the first system message (Phi-4-mini)."""
    functions = [
        tool.get("function", tool) if isinstance(tool, dict) else tool  # without OpenAI's wrapping
        for tool in tools
    ]
    text = json.dumps(functions, ensure_ascii=False)
    if messages and messages[0].get("role") == "system":
        return [{"tools": text, **messages[0]}, *messages[1:]]
    return [{"role": "system", "content": "", "tools": text}, *messages]
