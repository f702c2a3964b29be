"""Where a text has said before what it says now: the n-gram lookup of drafters."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

_LOOKED_AT = 16  # earlier places with the same last two tokens
_LONGEST_MATCH = 32  # tokens that are compared
_MOST_INDEXED = 8192  # places a call: a long prompt must not hold up the steps of others


@dataclass(frozen=True, slots=True)
class Match:
    """``size`` tokens, the last of a text, that stand before ``place`` too."""

    place: int
    size: int


class Lookup:
    """The earlier places of a growing text. Those with equal last two tokens are chained, newest
    first, so that a new token costs the same after a long text as after a short one."""

    def __init__(self) -> None:
        self._newest: dict[tuple[int, int], int] = {}  # pair -> the position after it
        self._older = array("i")  # position -> the one before it with the same pair, or -1

    def best(self, tokens: Sequence[int]) -> Match | None:
        """Return the longest match of the last tokens, the newest of equal ones; None if there is
        none, or a long text has not been read to its end yet. ``tokens`` are those of the call
        before, and more."""
        self._index(tokens)
        end = len(tokens)
        if end < 2 or len(self._older) < end:
            return None
        best, longest = -1, 1
        place = self._newest.get((tokens[-2], tokens[-1]), -1)
        for _ in range(_LOOKED_AT):
            if place < 0:
                break
            # Only a match longer than the best one is of interest.
            size = 2
            while (
                size < _LONGEST_MATCH
                and size < place
                and (tokens[place - 1 - size] == tokens[end - 1 - size])
            ):
                size += 1
            if size > longest:
                best, longest = place, size
            if size == _LONGEST_MATCH:
                break
            place = self._older[place]
        return Match(best, longest) if best >= 0 else None

    def _index(self, tokens: Sequence[int]) -> None:
        """Chain the places up to the last token, after which nothing is known yet."""
        known = len(self._older)
        for place in range(known, min(len(tokens), known + _MOST_INDEXED)):
            if place < 2:
                self._older.append(-1)
                continue
            pair = (tokens[place - 2], tokens[place - 1])
            self._older.append(self._newest.get(pair, -1))
            self._newest[pair] = place


def following(tokens: Sequence[int], place: int, count: int) -> Sequence[int]:
    """Return ``count`` tokens that followed ``place``; what has no end yet is taken to go on as it
    began."""
    period = len(tokens) - place
    if period >= count:
        return tokens[place : place + count]
    return [tokens[place + i % period] for i in range(count)]
