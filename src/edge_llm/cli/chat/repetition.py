"""A loop in an answer: the same words again and again."""

from __future__ import annotations

_LONGEST = 1000  # characters of what is repeated
_EVERY = 100  # characters between two looks
_TIMES = 5  # once, and four times more
_LENGTH = 600  # characters that the repetitions have together, at least
_CODE_LENGTH = 2400  # tables of numbers and assembly have long runs of equal lines


class LoopDetector:
    """Looks at the end of a text, as it grows, for something that stands there many times in
    immediate succession.

    Only exact repetitions count, and only long runs of them: refrains, tables, code and rows of
    dashes are no loops. What comes in one block of code, or in lines of a table, counts from a
    longer run on.
    """

    def __init__(self) -> None:
        self._text = ""
        self._unseen = 0
        self._fences = 0

    def push(self, text: str) -> bool:
        """Take the next characters. Return True where the text has come to loop."""
        self._fences += text.count("```")
        self._text = (self._text + text)[-_LONGEST * _TIMES :]
        self._unseen += len(text)
        if self._unseen < _EVERY:
            return False
        self._unseen = 0
        unit, length = repeated(self._text)
        formal = self._fences % 2 == 1 or "|" in unit
        # A row of one character or of two is drawn, not said.
        drawn = len(set(unit.split())) == 1 and not any(map(str.isalnum, unit))
        return length >= (_CODE_LENGTH if formal or drawn else _LENGTH)


def repeated(text: str) -> tuple[str, int]:
    """Return what the end of a text repeats, at least `_TIMES` times, and how many characters
    these repetitions have together; the longest such run, ("", 0) if there is none."""
    backwards = text[::-1]
    best = ("", 0)
    for period, equal in enumerate(_prefixes(backwards)):
        length = equal + period
        if 0 < period <= _LONGEST and length >= period * _TIMES and length > best[1]:
            best = (text[len(text) - period :], length)
    return best


def _prefixes(text: str) -> list[int]:
    """Return for each place how many characters from there on equal the beginning (Gusfield's Z),
    in linear time."""
    size = len(text)
    found = [0] * size
    left = right = 0
    for place in range(1, size):
        same = min(right - place, found[place - left]) if place < right else 0
        while place + same < size and text[same] == text[place + same]:
            same += 1
        if place + same > right:
            left, right = place, place + same
        found[place] = same
    return found
