"""The programs that were made of a checkpoint on the way, found again by the checkpoint."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_llm.catalogue.store import SUFFIX, programs_dir

_INDEX = ".made.json"


def key_of(files: Iterable[Path], what: str) -> str:
    """Return a key that changes when one of ``files`` is another one, or has another size or time,
    or when ``what`` is made of them is something else.

    Raises:
        OSError: a file is not there.
    """
    states = []
    for path in sorted(files):
        status = path.stat()
        states.append([str(path.resolve()), status.st_size, status.st_mtime_ns])
    return hashlib.sha256(json.dumps([what, states]).encode()).hexdigest()[:32]


def recall(key: str) -> Path | None:
    """Return the program in the store that was made under ``key``; None if there is none."""
    name = _index().get(key)
    if not isinstance(name, str) or Path(name).name != name:
        return None
    path = programs_dir() / name
    return path if path.is_file() else None


def remember(key: str, path: Path) -> None:
    """Note that ``path``, in the store, was made under ``key``. Where the note cannot be written
    the program is made again the next time."""
    kept = {k: name for k, name in _index().items() if (programs_dir() / str(name)).is_file()}
    temporary = programs_dir() / f"{_INDEX}.{os.getpid()}"
    with suppress(OSError):
        temporary.write_text(json.dumps({**kept, key: path.name}, indent=1), encoding="utf-8")
        temporary.replace(programs_dir() / _INDEX)


def free_name(stem: str, key: str) -> Path:
    """Return where in the store a program called ``stem`` goes: under that name, or with the
    beginning of ``key`` behind it where a program of another source has the name."""
    path = programs_dir() / f"{stem}{SUFFIX}"
    return path if not path.exists() else programs_dir() / f"{stem}-{key[:8]}{SUFFIX}"


def _index() -> dict[str, Any]:
    try:
        found = json.loads((programs_dir() / _INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
