"""Keep the results of an export in a file beside its target, from which the same export goes on.

The first line says of which export it is, by a digest of all that decides the numbers. Each record
is a line of JSON with a digest, and its arrays behind it. A record counts if it is whole, so that
it does not matter when a process was ended: what is behind the last good one is worked out again.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edge_llm.program.partial import lock_file

Arrays = Mapping[str, NDArray[Any]]

_LINE = 2**16  # bytes
_KINDS = {"factors": "searches of factors", "losses": "losses", "matrix": "rounded matrices"}


class Kept:
    """Arrays by names, whose first word is one of "factors", "losses" and "matrix". Without a
    ``target`` nothing is kept. `of` may be called from several threads.

    It never fails: where the file cannot be used, ``tell`` gets a sentence for people, and all is
    worked out."""

    def __init__(
        self,
        target: Path | None = None,
        key: str = "",
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Open the file of the program ``target``, and read what is there, if it has this ``key``
        (`key_of`)."""
        self._tell = tell
        self._lock = Lock()
        self._places: dict[str, tuple[int, list[Any]]] = {}
        self._file: IO[bytes] | None = None
        self._end = 0
        if target is None:
            return
        self._path = _path_of(target)
        try:
            self._file = _opened(self._path)
            if self._file is None:
                tell(f"another export of {target.name} is under way: what this one finds is lost")
            else:
                self._begin(self._file, (json.dumps({"export": key}) + "\n").encode())
        except OSError as exc:
            self._fail(exc)

    def of(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """Return what is kept under ``name``, or what ``make`` returns, which is kept then."""
        with self._lock:
            if self._file is not None and name in self._places:
                try:
                    return _read(self._file, *self._places[name])
                except (OSError, ValueError) as exc:
                    self._fail(exc)
        made = make()
        with self._lock:
            if self._file is not None:
                try:
                    self._put(self._file, name, made)
                except OSError as exc:
                    self._fail(exc)
        return made

    def __enter__(self) -> Kept:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                if not self._places:
                    self._path.unlink()
                self._file.close()
            self._file = None

    def _begin(self, file: IO[bytes], header: bytes) -> None:
        first = file.readline(_LINE)
        if first == header:
            self._end = len(header)
            self._scan(file)
            return
        if first:
            self._tell(
                f"{self._path.name} is damaged, or of an export of other files, or with another "
                "recipe or version: beginning anew"
            )
        file.seek(0)
        file.truncate()
        file.write(header)
        file.flush()
        self._end = len(header)

    def _scan(self, file: IO[bytes]) -> None:
        size = os.fstat(file.fileno()).st_size
        while (found := _record(file, size)) is not None:
            name, arrays = found
            begin = file.tell() - _bytes_of(arrays)
            self._places[name] = begin, arrays
            self._end = file.tell()
        if self._end < size:
            self._tell(
                f"{self._path.name} was cut or damaged at byte {self._end:,}: what was behind is "
                "worked out again"
            )
            file.truncate(self._end)
        if self._places:
            counts = Counter(name.partition(" ")[0] for name in self._places)
            listed = ", ".join(f"{count} {_KINDS[kind]}" for kind, count in counts.items())
            self._tell(f"going on from {self._path.name}: {listed}")

    def _put(self, file: IO[bytes], name: str, made: Arrays) -> None:
        arrays = [[key, array.dtype.str, list(array.shape)] for key, array in made.items()]
        data = b"".join(np.ascontiguousarray(array).tobytes() for array in made.values())
        record = {"name": name, "arrays": arrays, "sha256": _digest(name, arrays, data)}
        line = (json.dumps(record) + "\n").encode()
        file.seek(self._end)
        file.write(line)
        file.write(data)
        file.flush()
        self._places[name] = self._end + len(line), arrays
        self._end = file.tell()

    def _fail(self, exc: Exception) -> None:
        """Say why there is no file from now on; what it has stays."""
        self._tell(
            f"{self._path.name} cannot be used ({getattr(exc, 'strerror', None) or exc}): what is "
            "found from now on is lost if this export is ended"
        )
        if self._file is not None:
            with contextlib.suppress(OSError):  # a flush of what could not be written
                self._file.close()
        self._file = None


def key_of(facts: Any) -> str:
    """Return a digest of ``facts``, JSON values, of this code, and of what computes."""
    code = hashlib.sha256()
    folder = importlib.resources.files("edge_llm.export.weights")
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".py"):
            code.update(file.read_bytes())
    whole = json.dumps([facts, code.hexdigest(), np.__version__], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()


def forget(target: Path) -> None:
    """Remove what was kept for ``target``, unless another export uses it."""
    path = _path_of(target)
    with contextlib.suppress(OSError), path.open("r+b") as file:
        if lock_file(file.fileno()) is not False:
            path.unlink()


def _path_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.calibration")


def _opened(path: Path) -> IO[bytes] | None:
    """Return the file, made if need be; None if another process has it."""
    file = os.fdopen(
        os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b"
    )
    if lock_file(file.fileno()) is False:
        file.close()
        return None
    return file


def _record(file: IO[bytes], size: int) -> tuple[str, list[Any]] | None:
    """Return the name and the arrays of the next record and go behind it; None if there is no whole
    one."""
    try:
        line = file.readline(_LINE)
        record = json.loads(line)
        name, arrays, digest = record["name"], record["arrays"], record["sha256"]
        count = _bytes_of(arrays)
        if name.partition(" ")[0] not in _KINDS or not 0 <= count <= size - file.tell():
            return None
        return (name, arrays) if _digest(name, arrays, file.read(count)) == digest else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None


def _digest(name: str, arrays: list[Any], data: bytes) -> str:
    return hashlib.sha256(json.dumps([name, arrays]).encode() + b"\n" + data).hexdigest()


def _bytes_of(arrays: list[Any]) -> int:
    return sum(np.dtype(kind).itemsize * prod(shape) for _, kind, shape in arrays)


def _read(file: IO[bytes], begin: int, arrays: list[Any]) -> Arrays:
    file.seek(begin)
    return {
        key: np.frombuffer(file.read(_bytes_of([array])), array[1]).reshape(array[2]).copy()
        for array in arrays
        for key in array[:1]
    }
