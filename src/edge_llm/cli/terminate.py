"""SIGTERM as KeyboardInterrupt, so that `finally` and context managers clean up."""

from __future__ import annotations

import signal
from types import FrameType


def terminate_as_interrupt() -> None:
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
