"""Markers: control tokens and texts at which an answer goes over from one phase to the next.

A text may be spelled by any tokens; the last of them may hold more than the marker's end. What
was said before is remembered as a *tail*: the last bytes, as many as a marker could begin in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_llm.runner.guidance.vocabulary import Vocabulary

_BLANKS = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Step:
    """What a token does: ``rest`` are the bytes behind a marker that it completes, None if it
    completes none; ``tail`` is what to remember, None if no marker can come any more."""

    tail: bytes | None
    rest: bytes | None = None


class Markers:
    """Looks for the first of some markers. It has no state of its own."""

    def __init__(
        self, vocabulary: Vocabulary, markers: Sequence[int | bytes], *, at_start: bool = False
    ) -> None:
        """Look for control tokens, by id, and texts, which are not empty; with ``at_start`` at the
        beginning alone, where blanks may come before one."""
        self._vocabulary = vocabulary
        self._ids = frozenset(marker for marker in markers if isinstance(marker, int))
        self._texts = tuple(marker for marker in markers if isinstance(marker, bytes))
        self._at_start = at_start
        longest = max((len(text) for text in self._texts), default=0)
        self._kept = max(longest - 1, 3)  # 3: of a character that has begun
        self._rests: dict[frozenset[tuple[bytes, int]], list[tuple[int, bytes]]] = {}

    def step(self, tail: bytes | None, token: int) -> Step:
        """Return what ``token`` does after ``tail`` (at the beginning b"")."""
        if tail is None:
            return Step(None)
        if token in self._ids and not (self._at_start and tail):
            return Step(b"", b"")
        vocabulary = self._vocabulary
        if token in vocabulary.controls or token >= len(vocabulary.tokens):
            return Step(None if self._at_start else b"")
        return self.read(tail, vocabulary.tokens[token])

    def read(self, tail: bytes | None, data: bytes) -> Step:
        """Return what text does after ``tail``."""
        if tail is None:
            return Step(None)
        said = tail + data
        if self._at_start:
            said = said.lstrip(_BLANKS)
            for text in self._texts:
                if said.startswith(text):
                    return Step(b"", said[len(text) :])
            return Step(said if any(text.startswith(said) for text in self._texts) else None)
        ends = [
            place + len(text)
            for text in self._texts
            if (place := said.find(text, max(0, len(tail) - len(text) + 1))) >= 0
        ]
        if ends:
            return Step(b"", said[min(ends) :])
        return Step(said[-self._kept :])

    def rests(self, tail: bytes | None) -> list[tuple[int, bytes]]:
        """Return the tokens after ``tail`` that complete a text and go on behind it, each with
        what is behind."""
        if tail is None or not self._texts:
            return []
        begun = frozenset(
            (text, size)
            for text in self._texts
            for size in range(len(text))
            if (tail == text[:size] if self._at_start else tail.endswith(text[:size]))
        )
        known = self._rests.get(begun)
        if known is None:
            known = self._rests[begun] = self._find_rests(tail, begun)
        return known

    def _find_rests(
        self, tail: bytes, begun: frozenset[tuple[bytes, int]]
    ) -> list[tuple[int, bytes]]:
        vocabulary = self._vocabulary
        candidates: set[int] = set()
        for text, size in begun:
            find = vocabulary.starting if size else vocabulary.containing
            candidates.update(find(text[size:]))
        found = []
        for token in sorted(candidates):
            if rest := self.read(tail, vocabulary.tokens[token]).rest:
                found.append((token, rest))
        return found


def cut_within_character(tail: bytes) -> bool:
    """Return whether ``tail`` ends within a UTF-8 character."""
    for back, byte in enumerate(reversed(tail[-3:]), 1):
        if byte & 0xC0 != 0x80:  # not in the middle of one
            return byte >= 0xC0 and back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)
    return False
