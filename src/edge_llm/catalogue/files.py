"""Watching files grow while something else writes them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

POLL_SECONDS = 0.2


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
