"""Ask the terminal what it can do, and keep it from echoing during an answer."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


def is_capable(stream: TextIO) -> bool:
    """Tell whether a stream is a terminal that moves its cursor and has styles."""
    if not stream.isatty():
        return False
    return os.name == "nt" or os.environ.get("TERM", "") not in ("", "dumb", "unknown")


@contextmanager
def silent_keys() -> Iterator[None]:
    """Keep what is typed from being shown in the midst of an answer; it is read afterwards."""
    if os.name == "nt" or not sys.stdin.isatty():
        yield
        return
    import termios

    before = termios.tcgetattr(sys.stdin.fileno())
    quiet = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, before)
