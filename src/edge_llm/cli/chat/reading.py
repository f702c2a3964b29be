"""Messages as they are typed or piped."""

from __future__ import annotations

import sys
from typing import Protocol

QUOTES = '"""'


class Reader(Protocol):
    """Gives one message or command after the other."""

    def read(self) -> str:
        """Return the next one.

        Raises:
            EOFError: there are no more.
            KeyboardInterrupt: the person has pressed Ctrl-C.
        """


class PlainReader:
    """Reads standard input line by line, for pipes and for terminals that can do no more. Lines
    from one that begins with three double quotes to one that ends with them are one message."""

    def read(self) -> str:
        """Return the next line, or lines."""
        text = _line("> ")
        while is_open(text):
            try:
                text += "\n" + _line(". ")
            except EOFError:
                break
        return unquoted(text)


def _line(prompt: str) -> str:
    """Return a line, asked for on stderr where a person types it: stdout may be a file."""
    if sys.stdin.isatty():
        print(prompt, end="", file=sys.stderr, flush=True)
    return input()


def is_open(text: str) -> bool:
    """Tell whether a text begins with three quotes that nothing closes yet."""
    begun = text.lstrip()
    if not begun.startswith(QUOTES):
        return False
    return not begun[len(QUOTES) :].rstrip().endswith(QUOTES)


def unquoted(text: str) -> str:
    """Return a message without three quotes around it."""
    bare = text.strip()
    if not bare.startswith(QUOTES):
        return text
    return bare.removeprefix(QUOTES).removesuffix(QUOTES).strip("\n")
