"""What an evaluation has found so far, in a file from which it can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from edge_llm.errors import RequestError

_MOST = 1 << 30  # bytes


class Journal:
    """Records by their ids, kept in a file of JSON lines: the first says what was evaluated and
    how, and each that follows is a record, written when it is known. Without a path they are kept
    in memory alone."""

    def __init__(self, path: Path | None, header: Mapping[str, Any]) -> None:
        """Read the records of a former run of the same evaluation, if ``path`` has one. A last line
        that was cut is written again.

        Raises:
            RequestError: the file is of another evaluation, or cannot be read or written.
        """
        self.path = path
        self.records: dict[str, dict[str, Any]] = {}
        self._file: IO[bytes] | None = None
        if path is None:
            return
        first = _line({"evaluation": dict(header)})
        try:
            # Not "a": what was cut is overwritten.
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
            content = self._file.read(_MOST + 1)
            if len(content) > _MOST:
                raise RequestError(f"{path} has more than {_MOST} bytes")
            whole = content[: content.rfind(b"\n") + 1]
            if whole:
                self._read(path, whole, json.loads(first))
            elif not first.startswith(content):
                raise RequestError(f"{path} is there and holds no evaluation")
            self._file.seek(len(whole))
            self._file.truncate()
            if not whole:
                self._write(first)
        except OSError as error:
            self.close()
            raise RequestError(f"cannot write {path}: {error.strerror or error}") from error
        except BaseException:
            self.close()
            raise

    def _read(self, path: Path, content: bytes, header: Any) -> None:
        found = []
        for number, line in enumerate(content.splitlines(), 1):
            try:
                document = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise RequestError(f"line {number} of {path} is no JSON: {error}") from error
            if not isinstance(document, dict):
                raise RequestError(f"line {number} of {path} is no JSON object")
            found.append(document)
        if found[0] != header:
            raise RequestError(
                f"{path} has another evaluation{_difference(found[0], header)}",
                hint="Name another --output, or remove the file.",
            )
        for document in found[1:]:
            if not isinstance(document.get("id"), str):
                raise RequestError(f"a record of {path} has no id")
            self.records[document["id"]] = document

    def add(self, record: Mapping[str, Any]) -> None:
        """Keep a record, which has an ``id``.

        Raises:
            RequestError: it cannot be written.
        """
        self.records[record["id"]] = dict(record)
        if self._file is not None:
            try:
                self._write(_line(record))
            except OSError as error:
                raise RequestError(f"cannot write {self.path}: {error.strerror}") from error

    def _write(self, line: bytes) -> None:
        assert self._file is not None
        self._file.write(line)
        self._file.flush()

    def close(self) -> None:
        """Close the file; more than once is fine."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _line(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    theirs, ours = found.get("evaluation"), expected["evaluation"]
    if not isinstance(theirs, dict):
        return ""
    for key in {**ours, **theirs}:
        if theirs.get(key) != ours.get(key):
            return f": its {key} is {theirs.get(key)!r}, expected {ours.get(key)!r}"
    return ""
