"""Known words that an unknown one may have been meant for."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def near(word: str, known: Iterable[str], most: int = 2, cutoff: float = 0.6) -> list[str]:
    """Return at most ``most`` known words that ``word`` may be a slip for: those that it begins,
    where there are no more of them, else those that look like it."""
    words = list(known)
    begun = [name for name in words if name.startswith(word)] if word else []
    if 0 < len(begun) <= most:
        return begun
    return get_close_matches(word, words, most, cutoff)
