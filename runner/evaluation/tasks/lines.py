"""Files of JSON, an object a line, as sets of problems come."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from edge_llm.errors import RequestError

_MOST = 1 << 28  # bytes, unpacked


def text_of(path: Path) -> str:
    """Return the text of a file, unpacked if its name ends in ``.gz``.

    Raises:
        RequestError: it cannot be read, is no UTF-8, or too large.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(_MOST + 1)
        if len(content) > _MOST:
            raise RequestError(f"{path} has more than {_MOST} bytes")
        return content.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read {path}: {error}") from error


def objects_of(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file, one a line; empty lines are passed over.

    Raises:
        RequestError: it cannot be read, or a line is no JSON object.
    """
    found = []
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"line {number} of {path} is no JSON: {error}") from error
        if not isinstance(document, dict):
            raise RequestError(f"line {number} of {path} is no JSON object")
        found.append(document)
    return found


def field(document: dict[str, Any], name: str, kind: type, path: Path) -> Any:
    """Return a field of an object that ``path`` has.

    Raises:
        RequestError: it is missing, or of another type.
    """
    value = document.get(name)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise RequestError(
            f"{name} of an object in {path} is of type {type(value).__name__}, "
            f"expected {kind.__name__}"
        )
    return value
