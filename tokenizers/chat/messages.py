"""The messages of a chat, checked before a template sees them, as the server checks its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_llm.errors import RequestError

Message = Mapping[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")
_TEXTS = ("name", "tool_call_id", "reasoning_content", "reasoning", "thinking")
_SHOWN = 40  # characters of a value in an error


def checked_messages(messages: Any) -> Sequence[Message]:
    """Return the messages of a conversation.

    Raises:
        RequestError: they are not a list of objects, or one has no role that there is, no content,
            or a field of the wrong type; the message names its place.
    """
    if not _is_list(messages):
        raise RequestError(
            f"messages are of type {type(messages).__name__}, expected a list", param="messages"
        )
    if not messages:
        raise RequestError("messages are empty, expected at least one", param="messages")
    for place, message in enumerate(messages):
        _check(message, f"messages[{place}]")
    checked: Sequence[Message] = messages
    return checked


def _check(message: Any, where: str) -> None:
    if not isinstance(message, Mapping):
        several = _is_list(message)
        raise RequestError(
            f"{where} is of type {type(message).__name__}, expected an object with role and "
            "content",
            param=where,
            hint="a call takes one chat, which is a list of messages: ask for one chat at a time"
            if several
            else 'a message is like {"role": "user", "content": "Hi"}',
        )
    role = message.get("role")
    if role is None:
        raise RequestError(f"{where} has no role, expected one of: {_ROLES}", param=where)
    if role not in ROLES:  # compared, not looked up: it may be a member of an enumeration
        raise RequestError(
            f"{where}.role is {_shown(role)}, expected one of: {_ROLES}", param=f"{where}.role"
        )
    _check_content(message, role, f"{where}.content")
    for name in _TEXTS:
        if message.get(name) is not None and not isinstance(message[name], str):
            raise _wrong(message[name], f"{where}.{name}", "text")
    if calls := message.get("tool_calls"):
        _check_calls(calls, role, f"{where}.tool_calls")


def _check_content(message: Message, role: str, where: str) -> None:
    content = message.get("content")
    if content is None:
        given = "content" in message
        if role == "assistant" and (given or message.get("tool_calls")):
            return
        if role == "tool" and given:  # what a function returned may be nothing
            return
        problem = f"{where} is None" if given else f"{where} is missing"
        also = ", or tool_calls beside it" if role == "assistant" else ""
        raise RequestError(f"{problem}, expected text or a list of parts{also}", param=where)
    if isinstance(content, str):
        return
    if not _is_list(content):
        raise _wrong(content, where, "text or a list of parts")
    for place, part in enumerate(content):
        if isinstance(part, str):
            continue
        if not isinstance(part, Mapping):
            raise _wrong(part, f"{where}[{place}]", 'a part of the type "text"')
        if part.get("type") != "text":
            raise RequestError(
                f"{where}[{place}].type is {_shown(part.get('type'))}, expected 'text'",
                param=f"{where}[{place}].type",
            )
        if not isinstance(part.get("text"), str):
            raise _wrong(part.get("text"), f"{where}[{place}].text", "text")


def _check_calls(calls: Any, role: str, where: str) -> None:
    if not _is_list(calls):
        raise _wrong(calls, where, "a list of calls")
    if role != "assistant":
        raise RequestError(f"{where} is only for messages of the assistant", param=where)
    for place, call in enumerate(calls):
        function = call.get("function", call) if isinstance(call, Mapping) else call
        if not isinstance(function, Mapping):
            raise _wrong(function, f"{where}[{place}]", "an object with a function's name")
        if not isinstance(function.get("name"), str):
            raise _wrong(function.get("name"), f"{where}[{place}].function.name", "text")


def _wrong(value: Any, where: str, expected: str) -> RequestError:
    return RequestError(
        f"{where} is of type {type(value).__name__}, expected {expected}", param=where
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)


def _shown(value: Any) -> str:
    if not isinstance(value, str):
        return f"of type {type(value).__name__}"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


_ROLES = ", ".join(ROLES)
