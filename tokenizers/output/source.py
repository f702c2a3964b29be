"""Text that comes in pieces, read as if it were all there.

A syntax is read by a generator: it yields where it needs characters that have not come yet, and is
resumed when there are more, or no more. So the code of a syntax is its grammar, and where the text
was cut plays no part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]
Emit = Callable[[str], None]

_BRACKET = re.compile(r'["{}\[\]<]')
_QUOTE = re.compile(r'["\\]')
_SCALAR_END = re.compile(r"[\s,}\]]")


def drop(text: str) -> None:
    """Let go of text that means nothing where it stands; an `Emit`."""


class Source:
    """The characters of an answer that are not read yet.

    Reading may be noted (`note`), so that what turns out to be no call can be shown after all.
    """

    def __init__(self) -> None:
        self._text = ""
        self._ended = False
        self._noted: list[str] | None = None

    def push(self, text: str) -> None:
        """Add the next characters."""
        self._text += text

    def end(self) -> None:
        """Say that no more will come."""
        self._ended = True

    @property
    def exhausted(self) -> bool:
        """Tell whether the answer has ended and all of it is read."""
        return self._ended and not self._text

    def note(self, text: str = "") -> None:
        """Begin to note what is read, after ``text``."""
        self._noted = [text]

    def noted(self) -> str:
        """Return what was read since `note`, and end the noting."""
        text, self._noted = "".join(self._noted or ()), None
        return text

    def take(self, count: int) -> str:
        """Return the next ``count`` characters that have come."""
        text, self._text = self._text[:count], self._text[count:]
        if self._noted is not None:
            self._noted.append(text)
        return text

    def back(self, text: str) -> None:
        """Give back what was read last."""
        self._text = text + self._text
        if self._noted is not None:
            self._noted = ["".join(self._noted).removesuffix(text)]

    def until(self, marks: Iterable[str], emit: Emit) -> Steps[str | None]:
        """Read up to the first of some marks; ``emit`` gets the text before it as it comes.

        Returns:
            The mark, which is read too; None at the end of the answer. No mark may begin another.
        """
        marks = tuple(marks)
        pattern = re.compile("|".join(map(re.escape, marks)) or r"(?!)")
        while True:
            found = pattern.search(self._text)
            if found is not None:
                emit(self.take(found.start()))
                return self.take(len(found[0]))
            emit(self.take(len(self._text) - (0 if self._ended else self._held(marks))))
            if self._ended:
                return None
            yield

    def _held(self, marks: tuple[str, ...]) -> int:
        """Return how many of the last characters may begin a mark."""
        for count in range(min(len(self._text), max(map(len, marks), default=1) - 1), 0, -1):
            if any(mark.startswith(self._text[-count:]) for mark in marks):
                return count
        return 0

    def at(self, marks: Iterable[str]) -> Steps[str | None]:
        """Return which of some marks comes next, without reading it."""
        marks = tuple(marks)
        while True:
            for mark in marks:
                if self._text.startswith(mark):
                    return mark
            if self._ended or not any(mark.startswith(self._text) for mark in marks):
                return None
            yield

    def space(self) -> Steps[str]:
        """Read white space.

        Returns:
            The next character, which is not read; nothing at the end of the answer.
        """
        while True:
            self.take(len(self._text) - len(self._text.lstrip()))
            if self._text or self._ended:
                return self._text[:1]
            yield

    def json_string(self) -> Steps[str | None]:
        """Read a JSON string.

        Returns:
            Its value; None if none comes, or none that ends.
        """
        if (yield from self.space()) != '"':
            return None
        literal = [self.take(1)]
        while True:
            found = _QUOTE.search(self._text)
            if found is None:
                literal.append(self.take(len(self._text)))
            elif found[0] == '"':
                literal.append(self.take(found.end()))
                break
            elif len(self._text) > found.end():
                literal.append(self.take(found.end() + 1))
                continue
            if self._ended:
                return None
            yield
        try:
            value = json.loads("".join(literal), strict=False)
        except ValueError:
            return None
        return str(value)

    def json_value(self, emit: Emit, close: str | None) -> Steps[bool]:
        """Read a JSON value; ``emit`` gets its text as it comes.

        It is not looked into further than to find its end: an object that is not JSON comes out as
        it is.

        Args:
            close: a mark that ends the value wherever it stands outside a string.

        Returns:
            Whether it has come to its end.
        """
        first = yield from self.space()
        if first not in ("{", "["):
            return (yield from self._scalar(emit, first))
        depth, within = 0, False
        while True:
            found = (_QUOTE if within else _BRACKET).search(self._text)
            if found is None:
                emit(self.take(len(self._text)))
            else:
                emit(self.take(found.start()))
                sign = found[0]
                if sign == "<" and close and (yield from self.at([close])):
                    return False
                while sign == "\\" and len(self._text) < 2 and not self._ended:
                    yield
                emit(self.take(2 if sign == "\\" else 1))
                within ^= sign == '"'
                depth += (sign in ("{", "[")) - (sign in ("}", "]"))
                if depth == 0:
                    return True
                continue
            if self._ended:
                return False
            yield

    def _scalar(self, emit: Emit, first: str) -> Steps[bool]:
        if first == '"':  # JSON within a string: what it holds is the value
            value = yield from self.json_string()
            emit(value or "")
            return value is not None
        while True:
            found = _SCALAR_END.search(self._text)
            emit(self.take(len(self._text) if found is None else found.start()))
            if found is not None or self._ended:
                return found is not None
            yield
