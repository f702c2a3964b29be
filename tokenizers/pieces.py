"""Long texts in pieces, whose ids one after another are those of the whole.

Encoding takes memory by the piece and not by the text, is given up as soon as it is known that the
ids are too many, and can be broken off between two pieces.

A text is cut behind a common letter or a digit, and before white space or punctuation. There no
word of a byte-level tokenizer goes on, and what comes is read as if nothing had been before it.
Whether that holds for a tokenizer is found out from itself: by what it makes of a sample cut at
every such place, by its added tokens, and where it does not cut texts into words, by its
vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

PIECE = 2**15  # characters

# Letters that every tokenizer's expressions take for letters; some leave rare ones out.
_LETTER = "A-Za-zß-öø-ÿа-яА-Яぁ-んァ-ヶ一-龥가-힣"
_WORDS = re.compile(
    rf"[{_LETTER}0-9](?=[ \t\n])|[{_LETTER}](?=[,.;:!?\uff0c\u3002\u3001\uff1b\uff1a\uff01\uff1f])"
)
_SPACES = re.compile(rf"[{_LETTER}0-9](?= )")
_SAMPLE = (
    "One word, two; three! 12 34 a1 b2: it's x\nline\n\nnext\ttab 中文\uff0c中文。テスト、ok\uff1f "
    "Ünï çödé's y  z   q 3.5, (a) [b] {c} d? e.g. U.S.A. привет мир, ok\n  indented\n\n\n    more. "
    "THE END I'M 'x"
)

_check: ContextVar[Callable[[], None] | None] = ContextVar("check", default=None)


@contextmanager
def interruptible(check: Callable[[], None]) -> Generator[None]:
    """Call ``check`` between the pieces of whatever is encoded inside, on this thread. What it
    raises ends the encoding."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def checkpoint() -> None:
    """Raise what whoever waits for the encoding wants to end it with, if anything."""
    check = _check.get()
    if check is not None:
        check()


class Cutter:
    """Cuts texts where a tokenizer allows it.

    Args:
        added: the added tokens of a ``tokenizer.json``.
        encode: returns the ids of a text; the second argument says that it goes on from another.
        words: returns into how many words a text is cut; None if none is.
        tokens: returns the bytes of every token of the vocabulary.
    """

    def __init__(
        self,
        added: Iterable[dict[str, Any]],
        encode: Callable[[str, bool], list[int]],
        words: Callable[[str], int] | None,
        tokens: Callable[[], Iterable[bytes]],
    ) -> None:
        self._places = self._find_places(list(added), encode, words, tokens)

    def pieces(self, text: str, size: int) -> Iterator[str]:
        """Yield the pieces of a text, each of at least ``size`` characters but for the last, and
        longer only where the text cannot be cut."""
        start = 0
        while self._places is not None and len(text) - start > size:
            found = self._places.search(text, start + size)
            if found is None:
                break
            yield text[start : found.end()]
            start = found.end()
        yield text[start:]

    @staticmethod
    def _find_places(
        added: list[dict[str, Any]],
        encode: Callable[[str, bool], list[int]],
        words: Callable[[str], int] | None,
        tokens: Callable[[], Iterable[bytes]],
    ) -> re.Pattern[str] | None:
        split = words is not None and words("ab cd") > 1
        places = _WORDS if split else _SPACES
        for token in added:
            content = token["content"]
            # An added token is found before anything is cut into words; some take white space in.
            takes_more = token["rstrip"] and content[-1:].isalnum()
            if takes_more or places.search(content) is not None:
                return None
        if not split and any(re.search(rb"[^ ] ", token) for token in tokens()):
            return None
        whole = encode(_SAMPLE, False)
        for found in places.finditer(_SAMPLE):
            at = found.end()
            if encode(_SAMPLE[:at], False) + encode(_SAMPLE[at:], True) != whole:
                return None
        return places
