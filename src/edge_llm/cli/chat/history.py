"""The history of what was typed, in a file that the user alone may read."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit.history import History

_MOST = 2000  # entries that are kept
_MOST_BYTES = 4 * 1024 * 1024  # of the file, before it is cut to them


def history_path() -> Path:
    """Return the history's file, where the platform keeps what programs remember of a user. It is
    not in ``EDGE_LLM_HOME``, which users may share.

    Raises:
        RuntimeError: the user has no home folder.
    """
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        folder = Path(local) if local else Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Application Support"
    else:
        state = os.environ.get("XDG_STATE_HOME")
        folder = Path(state) if state else Path.home() / ".local" / "state"
    return folder / "edge-llm" / "chat-history.jsonl"


class FileHistory(History):
    """A line of JSON for each message. A file that cannot be read or written ends no conversation:
    then the history is that of this one."""

    def __init__(self, path: Path) -> None:
        """Use the file at ``path``, which need not exist."""
        super().__init__()
        self._path = path
        self.trouble: str | None = None  # why nothing is kept

    def load_history_strings(self) -> Iterable[str]:
        """Return the entries, the newest first."""
        try:
            size = self._path.stat().st_size
            with self._path.open(encoding="utf-8", errors="replace") as file:
                lines = file.readlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            self._give_up(error)
            return []
        entries = [entry for line in lines[-_MOST:] if (entry := _entry(line)) is not None]
        if size > _MOST_BYTES:
            self._rewrite(entries)
        return reversed(entries)

    def store_string(self, string: str) -> None:
        """Append an entry."""
        if self.trouble is not None:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(json.dumps(string) + "\n")
        except OSError as error:
            self._give_up(error)

    def _rewrite(self, entries: list[str]) -> None:
        scratch = self._path.with_suffix(".new")
        kept = entries[-_MOST // 2 :]
        try:
            handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.writelines(json.dumps(entry) + "\n" for entry in kept)
            scratch.replace(self._path)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.trouble = f"{self._path}: {error.strerror or error}"


def _entry(line: str) -> str | None:
    try:
        entry = json.loads(line)
    except ValueError:  # a line that was cut by a full disk
        return None
    return entry if isinstance(entry, str) else None
