"""Read the texts for calibration: a file of plain text, or of texts and conversations as JSON
lines.

A name that ends in ``.jsonl`` or ``.json`` says JSON lines: each is an object with ``messages``,
and perhaps ``tools``, as files for fine-tuning have them, or with ``text``. Any other is plain
text.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_llm.errors import ConfigError, RequestError
from edge_llm.tokenizers.chat.messages import Message, checked_messages

BUILTIN = "builtin"
_BYTES = 2**18  # more than enough tokens
_JSON = (".jsonl", ".json")


@dataclass(frozen=True, slots=True)
class Piece:
    """A ``text``, or a conversation of ``messages`` with ``tools``; ``line`` is where it is in its
    file, from 1."""

    line: int
    text: str = ""
    messages: Sequence[Message] = ()
    tools: Sequence[Message] = ()

    @property
    def plain(self) -> str:
        """The text, or the conversation as one: what a model without a chat template reads."""
        turns = (f"{turn['role'].capitalize()}: {_said(turn)}" for turn in self.messages)
        return self.text or "\n".join(turns)


def calibration_file(name: str) -> Path:
    """Return the file that a recipe means: `BUILTIN` is the one that ships with the package."""
    if name == BUILTIN:
        return Path(str(importlib.resources.files("edge_llm") / "configs" / "calibration.jsonl"))
    return Path(name).expanduser()


def read_calibration(path: Path) -> list[Piece]:
    """Return the pieces in the beginning of a file.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8, or JSON lines are none, or hold something
            else than texts and conversations.
    """
    text, whole = _beginning(path)
    if path.suffix.lower() not in _JSON:
        return [Piece(1, text)]
    lines = text.split("\n")  # not splitlines, which cuts at what JSON may have in a text
    if not whole and len(lines) == 1:
        raise ConfigError(f"calibration: line 1 of {path} is longer than {_BYTES:,} bytes")
    found = []
    for number, line in enumerate(lines if whole else lines[:-1], 1):
        if line.strip():
            try:
                found.append(_piece(number, line))
            except (ConfigError, RequestError) as exc:
                raise ConfigError(
                    f"calibration: line {number} of {path}: {exc}",
                    hint='expected {"messages": [...]} or {"text": "..."} in each line; a file of '
                    f"plain text has a name that does not end in {' or '.join(_JSON)}",
                ) from exc
    return found


def as_plain_text(pieces: Sequence[Piece]) -> str:
    """Return all pieces as one text."""
    return "\n\n".join(piece.plain for piece in pieces)


def _beginning(path: Path) -> tuple[str, bool]:
    """Return the beginning of a file, and whether it is all of it."""
    try:
        with path.open("rb") as file:
            data = file.read(_BYTES)
            whole = not file.read(1)
    except OSError as exc:
        raise ConfigError(f"calibration: {path} cannot be read: {exc.strerror}") from exc
    try:
        return data.decode("utf-8"), whole
    except UnicodeDecodeError as exc:
        if not whole and exc.start >= len(data) - 4:  # in the middle of a character
            return data[: exc.start].decode("utf-8"), False
        raise ConfigError(f"calibration: {path} is not a text in UTF-8: {exc}") from exc


def _piece(number: int, line: str) -> Piece:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"not JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise ConfigError(f"got {_kind(document)}, expected an object")
    given = [name for name in ("messages", "text") if name in document]
    if len(given) != 1:
        has = " and ".join(given) or ", ".join(sorted(document)[:5]) or "nothing"
        raise ConfigError(f"the object has {has}, expected either messages or text")
    if given == ["messages"]:
        tools = document.get("tools") or ()
        if not isinstance(tools, list | tuple) or not all(isinstance(t, Mapping) for t in tools):
            raise ConfigError("tools is no list of objects")
        return Piece(number, messages=checked_messages(document["messages"]), tools=tools)
    text = document["text"]
    if not isinstance(text, str):
        raise ConfigError(f"text is {_kind(text)}, expected a text")
    return Piece(number, text)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return names.get(type(value), "nothing" if value is None else "a number")


def _said(turn: Message) -> str:
    """Return the content of a message, with its calls as JSON."""
    content = turn.get("content") or ""
    if not isinstance(content, str):
        content = "".join(part if isinstance(part, str) else part["text"] for part in content)
    calls = turn.get("tool_calls")
    return content + (json.dumps(calls, ensure_ascii=False) if calls else "")
