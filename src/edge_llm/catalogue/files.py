"""Files while they are fetched: watched as they grow, and scratch folders that leave nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

POLL_SECONDS = 0.2
_LOCK = ".lock"
_YOUNG_SECONDS = 10.0


def bytes_under(folder: Path) -> int:
    """Return the size of the files in a folder, some of which may just be going away; links
    count with their own size."""
    total = 0
    for parent, _, names in os.walk(folder):  # which passes over folders that vanish meanwhile
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


@contextlib.contextmanager
def report_growth(
    folder: Path, total: int, progress: Callable[[str, int, int], None]
) -> Iterator[None]:
    """Call ``progress("download", grown, total)`` from a thread of its own while the folder
    grows, and once more at the end if all went well."""
    before = bytes_under(folder)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_SECONDS):
            progress("download", max(0, min(bytes_under(folder) - before, total)), total)

    thread = threading.Thread(target=watch, name="download-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    progress("download", total, total)


def try_lock(file: IO[bytes]) -> bool:
    """Take the lock of an open file, which its process holds until it closes it or ends. Return
    False if another process has it, or the system has no such locks."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def scratch_folder(folder: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder in ``folder``, removed at the end, and remove first what killed processes
    left of theirs. One that is a few seconds old may not have been locked yet by who made it."""
    for left in folder.glob(f"{prefix}*"):
        with contextlib.suppress(OSError), (left / _LOCK).open("r+b") as lock:
            if time.time() - left.stat().st_mtime > _YOUNG_SECONDS and try_lock(lock):
                shutil.rmtree(left, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as name,
        (Path(name) / _LOCK).open("xb") as lock,
    ):
        try_lock(lock)
        yield Path(name)
