"""From the items of a conversation to the messages of a chat, and what items have beside."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

Item = Mapping[str, Any]

_PREFIXES = MappingProxyType(
    {
        "message": "msg",
        "reasoning": "rs",
        "function_call": "fc",
        "function_call_output": "fco",
    }
)
_SEALED = "edge-llm:"


def new_id(kind: str, instance: str = "") -> str:
    """Return an id for a new item of a kind. It has 32 hexadecimal digits, the first of them
    ``instance``."""
    return f"{_PREFIXES[kind]}_{(instance + secrets.token_hex(16))[:32]}"


def item_of(model: BaseModel, instance: str = "") -> dict[str, Any]:
    """Return an item of a request as it is kept and listed: with a type and an id, which is that of
    an ``instance``."""
    given = model.model_dump(exclude_unset=True)
    kind = given.get("type") or "message"
    item = {"id": new_id(kind, instance), "type": kind, "status": "completed"}
    return item | {name: value for name, value in given.items() if value is not None}


def sealed(text: str) -> str:
    """Return a thinking block in the form of ``encrypted_content``. It is not secret: it went to
    the client that sends it back, and both are the user's."""
    return base64.b64encode((_SEALED + text).encode()).decode()


def unsealed(content: str) -> str:
    """Return what `sealed` was given; nothing of what another server sealed."""
    try:
        text = base64.b64decode(content, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    return text.removeprefix(_SEALED) if text.startswith(_SEALED) else ""


def messages_of(instructions: str | None, items: Iterable[Item]) -> list[dict[str, Any]]:
    """Return the messages that some items are. What the assistant thought, said and called in one
    go is one message; system messages at the beginning, instructions first, are one too, since
    many templates know no second."""
    messages: list[dict[str, Any]] = []
    if instructions is not None:
        messages.append({"role": "system", "content": instructions})
    names: dict[str, str] = {}  # of functions, by the ids of their calls
    for item in items:
        match item["type"]:
            case "message":
                role, text = _role(item), _text(item["content"])
                last = messages[-1] if messages else {}
                leading = role == "system" and len(messages) == 1
                if last.get("role") == role and (leading or role == "assistant"):
                    last["content"] = _joined(last["content"], text)
                else:
                    messages.append({"role": role, "content": text})
            case "reasoning":
                if text := _thought(item):
                    message = _assistant(messages)
                    message["reasoning_content"] = _joined(message.get("reasoning_content"), text)
            case "function_call":
                names[item["call_id"]] = item["name"]
                function = {"name": item["name"], "arguments": item["arguments"]}
                call = {"id": item["call_id"], "type": "function", "function": function}
                _assistant(messages).setdefault("tool_calls", []).append(call)
            case "function_call_output":
                call_id = item["call_id"]
                name = {"name": names[call_id]} if call_id in names else {}
                content = _text(item["output"])
                messages.append(
                    {"role": "tool", "tool_call_id": call_id, **name, "content": content}
                )
            case kind:
                raise AssertionError(f"no message is made of a {kind}")
    return messages


def unanswerable(known: Sequence[Item], items: Sequence[Item]) -> int | None:
    """Return the index of the first of ``items`` that is the output of a call which neither it nor
    ``known`` has; None if all is well."""
    calls = {item["call_id"] for item in known if item["type"] == "function_call"}
    for index, item in enumerate(items):
        if item["type"] == "function_call":
            calls.add(item["call_id"])
        elif item["type"] == "function_call_output" and item["call_id"] not in calls:
            return index
    return None


def _assistant(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the assistant's message that the next item belongs to."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    return messages[-1]


def _role(item: Item) -> str:
    # "developer" is the newer name of "system", which templates know.
    return "system" if item["role"] == "developer" else str(item["role"])


def _text(parts: Sequence[Mapping[str, Any]]) -> str:
    return "".join(part["refusal"] if part["type"] == "refusal" else part["text"] for part in parts)


def _thought(item: Item) -> str:
    for name in ("content", "summary"):
        if text := "\n".join(part["text"] for part in item.get(name) or ()):
            return text
    return unsealed(item.get("encrypted_content") or "")


def _joined(before: str | None, text: str) -> str:
    return f"{before}\n\n{text}" if before else text
