"""For how long a model stays: seconds, or a text as Ollama and Go write durations."""

from __future__ import annotations

import re
from math import inf, isfinite

_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", re.ASCII)
_NUMBER = re.compile(r"\d+(\.\d*)?|\.\d+", re.ASCII)
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
MOST_SECONDS = 1e7  # some months; what is longer is for ever


def keep_seconds(value: float | str) -> float:
    """Return the seconds that a duration means: a number of seconds, or a text like "5m", "1h30m"
    or "300"; infinity if it is negative.

    Raises:
        ValueError: it is no duration.
    """
    seconds = _parsed(value) if isinstance(value, str) else float(value)
    if not isfinite(seconds):
        raise ValueError("not a finite number of seconds")
    return inf if seconds < 0 or seconds > MOST_SECONDS else seconds


def _parsed(text: str) -> float:
    text = text.strip()
    sign, size = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if _NUMBER.fullmatch(size):
        return sign * float(size)
    seconds, at = 0.0, 0
    for part in _PART.finditer(size):
        if part.start() != at:
            break
        seconds += float(part[1]) * _SECONDS[part[2]]
        at = part.end()
    if not size or at != len(size):
        raise ValueError("no duration like 5m, 1h30m or 300")
    return sign * seconds
