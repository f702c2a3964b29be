"""How long the stages took, and how much memory they held."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STATUS = Path("/proc/self/status")
_INTERVAL = 0.02  # seconds; a tensor takes longer than that to pack


def anonymous_bytes() -> int | None:
    """Memory of this process that no file backs, now (RssAnon); None where the system does not
    say. Mapped checkpoints and programs are not counted: the system can drop them."""
    try:
        status = _STATUS.read_text(encoding="ascii")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return None


def silent(stage: str, done: int, total: int) -> None:
    """Report progress to nobody."""


class Meter:
    """Seconds of each stage, and the peak of anonymous memory of each phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of the block to stage ``name``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + elapsed

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Samples memory in a thread while the block runs."""
        done = threading.Event()

        def sample() -> None:
            while True:
                now = anonymous_bytes()
                if now is None:
                    return
                self.peaks[name] = max(self.peaks.get(name, 0), now)
                if done.wait(_INTERVAL):
                    return

        thread = threading.Thread(target=sample, name="edge-llm-meter", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
