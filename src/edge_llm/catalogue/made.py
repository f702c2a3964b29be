"""The programs that were made of a checkpoint on the way, found again by the checkpoint."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from edge_llm.catalogue.notes import read_notes, write_notes
from edge_llm.catalogue.store import SUFFIX, programs_dir

_INDEX = ".made.json"


def key_of(files: Iterable[Path], what: str) -> str:
    """Return a key that changes when one of ``files`` is another one (though it has its name, size
    and time), or has another size or time, or when ``what`` is made of them is something else.

    Raises:
        OSError: a file is not there.
    """
    states = []
    for path in sorted(files):
        status = path.stat()
        states.append([str(path.resolve()), status.st_ino, status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps([what, states]).encode()).hexdigest()[:32]


def recall(key: str) -> Path | None:
    """Return the program in the store that was made under ``key``; None if there is none any more:
    also where another file has its name since, or it was written to."""
    note = read_notes(programs_dir() / _INDEX).get(key)
    return None if note is None else _as_noted(note)


def remember(key: str, path: Path) -> None:
    """Note that ``path``, in the store, was made under ``key``. Where the note cannot be written
    the program is made again the next time."""
    index = programs_dir() / _INDEX
    kept = {k: note for k, note in read_notes(index).items() if _as_noted(note) is not None}
    with suppress(OSError):
        write_notes(index, {**kept, key: [path.name, *_state(path)]})


def name_of(stem: str, key: str) -> Path:
    """Return where in the store a program called ``stem`` is made: with the beginning of ``key``
    behind it, since another process may be making one of that name of another source."""
    return programs_dir() / f"{stem}-{key[:8]}{SUFFIX}"


def settle(path: Path, stem: str) -> Path:
    """Give a program that was made at `name_of` its shorter name, unless a program has it (or the
    file system cannot tell so in one step), and return where it is."""
    short = programs_dir() / f"{stem}{SUFFIX}"
    with suppress(OSError):
        os.link(path, short)  # which, unlike a rename, takes nobody's place
        path.unlink()
        return short
    return path if path.exists() else short  # another process made the same, and settled it


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _as_noted(note: object) -> Path | None:
    """Return the program that is still as it was noted; None for any other."""
    if not isinstance(note, list) or not note or not isinstance(note[0], str):
        return None
    path = programs_dir() / note[0]
    try:
        same = path.parent == programs_dir() and path.is_file() and _state(path) == note[1:]
    except (OSError, ValueError):
        same = False
    return path if same else None
