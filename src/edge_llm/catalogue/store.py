"""The folders under ``EDGE_LLM_HOME``, and the programs in them."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from edge_llm.errors import SourceError

SUFFIX = ".edge"


@dataclass(frozen=True, slots=True)
class StoredProgram:
    """A program file in the store. ``modified`` is in seconds since the epoch."""

    name: str
    path: Path
    bytes: int
    modified: float


def home() -> Path:
    """Return ``EDGE_LLM_HOME``, or ``edge-llm`` in the user's cache directory; it may not exist."""
    chosen = os.environ.get("EDGE_LLM_HOME")
    if chosen:
        return expand(chosen)
    if sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "edge-llm"


def expand(path: str) -> Path:
    """Return the path, ``~`` and ``~name`` replaced by the home folder they mean.

    Raises:
        SourceError: there is no such home folder, or the system takes no such path.
    """
    try:
        expanded = Path(path).expanduser()
        expanded.exists()
    except (OSError, RuntimeError) as exc:  # e.g. a name too long; an unknown user
        shown = path if len(path) < 80 else f"{path[:80]}…"
        raise SourceError(f"{shown!r} cannot be a path: {exc.args[-1]}") from exc
    return expanded


def models_dir() -> Path:
    """Return the folder of fetched sources."""
    return home() / "models"


def programs_dir() -> Path:
    """Return the folder of exported programs."""
    return home() / "programs"


def make_programs_dir() -> Path:
    """Return the folder of exported programs, made if need be.

    Raises:
        SourceError: it cannot be made.
    """
    folder = programs_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise SourceError(
            f"cannot make the folder {folder}: {exc.strerror}",
            hint="EDGE_LLM_HOME names another place for programs",
        ) from exc
    return folder


def list_programs() -> list[StoredProgram]:
    """Return the programs of the store, the newest first.

    Raises:
        SourceError: the store is there and cannot be read.
    """
    try:
        names = os.listdir(programs_dir())
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise SourceError(
            f"cannot read the folder {programs_dir()}: {exc.strerror}",
            hint="EDGE_LLM_HOME names another place for programs",
        ) from exc
    found = []
    for path in (programs_dir() / name for name in names if name.endswith(SUFFIX)):
        try:
            status = path.stat()
        except OSError:  # removed meanwhile, or a link to nowhere
            continue
        if not stat.S_ISREG(status.st_mode) or path.name.startswith("."):
            continue
        found.append(StoredProgram(path.stem, path, status.st_size, status.st_mtime))
    return sorted(found, key=lambda program: (-program.modified, program.name))
