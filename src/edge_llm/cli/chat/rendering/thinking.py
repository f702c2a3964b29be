"""A thinking block on a terminal: dimmed, behind a bar, as plain text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edge_llm.cli.chat.rendering.inline import Span
from edge_llm.cli.chat.rendering.wrapping import Rows

if TYPE_CHECKING:
    from rich.console import Console

_STYLE = "dim italic"
_HIDDEN = "(thinking)"


class Thinking:
    """Shows a thinking block word by word; hidden ones as one word, until they are over."""

    def __init__(self, console: Console, bar: list[Span], *, hidden: bool) -> None:
        self._console = console
        self._rows = Rows(console)
        self._bar = bar
        self._hidden = hidden
        self._open = False
        self._on_line = False
        self._blanks = 0
        self._text = ""

    def write(self, text: str) -> None:
        """Show the whole words of what has come."""
        if not text or (not self._open and not text.strip()):
            return
        if not self._open and self._hidden:
            self._console.file.write(f"\x1b[2m{_HIDDEN}\x1b[0m")
        self._open = True
        if self._hidden:
            return
        *lines, self._text = (self._text + text).split("\n")
        for line in lines:
            self._words(line)
            self._end_line()
        if (found := re.match(r".*\s", self._text)) is not None:
            self._words(found[0])
            self._text = self._text[found.end() :]

    def end(self) -> None:
        """Show what is left, and a blank line."""
        if not self._open:
            return
        self._open = False
        if self._hidden:
            self._console.file.write("\r\x1b[2K")
            return
        if self._text.strip():
            self._words(self._text)
        if self._on_line:
            self._end_line()
        self._rows.newline()

    def _words(self, text: str) -> None:
        if not self._on_line:
            if not text.strip():
                return
            for _ in range(self._blanks):
                self._rows.begin(self._bar, self._bar)
                self._rows.end()
            self._blanks = 0
            self._rows.begin(self._bar, self._bar)
            self._on_line = True
        self._rows.write([Span(text, _STYLE)])

    def _end_line(self) -> None:
        if self._on_line:
            self._rows.end()
        else:
            self._blanks = 1  # those at the end are not shown
        self._on_line = False
