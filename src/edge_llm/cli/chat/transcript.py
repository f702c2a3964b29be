"""Conversations in files: a JSON list of messages, as the HTTP routes take them."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from edge_llm.errors import RequestError

Message = dict[str, Any]

_ROLES = ("system", "user", "assistant")
_MOST_BYTES = 64 * 1024 * 1024


def path_of(name: str) -> Path:
    """Return the file that a person names; "~" is the home folder, and quotes around it are none
    of its name.

    Raises:
        RequestError: no name was given.
    """
    if len(name) > 2 and name[0] == name[-1] and name[0] in "\"'":
        name = name[1:-1]
    if not name:
        raise RequestError("got no file name, expected one behind the command")
    try:
        return Path(name).expanduser()
    except RuntimeError as exc:  # no such user
        raise RequestError(f"{name}: {exc}") from exc


def write(path: Path, messages: list[Message]) -> int:
    """Write a conversation under another name, then rename it: a whole file or none. Return its
    bytes.

    Raises:
        RequestError: it cannot be written; a file that was there before is as it was.
    """
    data = (json.dumps(messages, ensure_ascii=False, indent=2) + "\n").encode()
    target = path.resolve()  # what a link leads to is replaced, not the link
    if target.exists() and not target.is_file():
        raise RequestError(f"{path} is no file, expected the name of one, or a new name")
    try:
        handle, scratch = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    except OSError as exc:
        raise _cannot("write", path, exc) from exc
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(scratch, target.stat().st_mode & 0o777 if target.exists() else 0o600)
        os.replace(scratch, target)
    except BaseException as exc:
        Path(scratch).unlink(missing_ok=True)
        if isinstance(exc, OSError):
            raise _cannot("write", path, exc) from exc
        raise
    return len(data)


def read(path: Path) -> list[Message]:
    """Return the conversation in a file: a list of messages, or an object with such ``messages``.

    Raises:
        RequestError: it cannot be read, or is no conversation; the message says where.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise RequestError(f"{path} is larger than {_MOST_BYTES} bytes, which no context holds")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise _cannot("read", path, exc) from exc
    except UnicodeDecodeError as exc:
        raise RequestError(f"{path} is no text in UTF-8, expected a JSON list of messages") from exc
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise RequestError(f"{path} is no JSON: {exc}") from exc
    messages = document.get("messages") if isinstance(document, dict) else document
    if not isinstance(messages, list):
        raise RequestError(f"{path} has no list of messages")
    return [_checked(message, f"{path}: message {i}") for i, message in enumerate(messages, 1)]


def _checked(message: Any, where: str) -> Message:
    if not isinstance(message, dict):
        raise RequestError(f"{where} is no object, expected role and content")
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        raise RequestError(f"{where}: role is {role!r:.40}, expected {', '.join(_ROLES)}")
    if not isinstance(content, str):
        raise RequestError(f"{where}: content is {content!r:.40}, expected a text")
    kept = {"role": role, "content": content}
    thought = message.get("reasoning_content")
    if role == "assistant" and isinstance(thought, str) and thought:
        kept["reasoning_content"] = thought
    try:
        json.dumps(kept, ensure_ascii=False).encode()
    except UnicodeEncodeError as exc:
        raise RequestError(f"{where} has half of a character") from exc
    return kept


def _cannot(verb: str, path: Path, error: OSError) -> RequestError:
    return RequestError(f"cannot {verb} {path}: {error.strerror or error}")
