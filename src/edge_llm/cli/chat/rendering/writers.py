"""Write one answer to the terminal: as Markdown, or as the plain text that it is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import Console

# Controls would reach the terminal, which obeys them; shown are their pictures.
_VISIBLE = {code: 0x2400 + code for code in range(32)} | {0x7F: 0x2421}
_VISIBLE |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
del _VISIBLE[ord("\n")], _VISIBLE[ord("\t")]
_VISIBLE_TEXT: dict[int, int | None] = {**_VISIBLE, ord("\r"): None}


class Writer(Protocol):
    """Shows one answer."""

    def wait(self) -> None:
        """Show that the model is at work."""

    def thinking(self, text: str) -> None:
        """Show the next characters of a thinking block."""

    def text(self, text: str) -> None:
        """Show the next characters of the content."""

    def end(self) -> None:
        """Show what is left; the answer is over."""


def visible(text: str) -> str:
    """Return a text for a terminal, its control characters as pictures of them."""
    return text.translate(_VISIBLE_TEXT)


class PlainWriter:
    """Shows an answer as it is; thinking on a terminal alone, so that a pipe gets the answer."""

    def __init__(self, stream: TextIO, *, hide_thinking: bool) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._shows = self._terminal and not hide_thinking
        self._thinks = False

    def wait(self) -> None:
        """Show nothing: it could not be taken back."""

    def thinking(self, text: str) -> None:
        """Show thinking between two notes."""
        if self._shows:
            if not self._thinks:
                self._write("(thinking)\n")
            self._thinks = True
            self._write(text)

    def text(self, text: str) -> None:
        """Show the next characters."""
        if text and self._thinks:
            self._thinks = False
            self._write("\n(answer)\n")
        self._write(text)

    def end(self) -> None:
        """End the line."""
        self._write("\n")

    def _write(self, text: str) -> None:
        self._stream.write(visible(text) if self._terminal else text)
        self._stream.flush()


class RichWriter:
    """Shows an answer as Markdown, and its thinking dimmed behind a bar."""

    def __init__(self, console: Console, *, hide_thinking: bool) -> None:
        from edge_llm.cli.chat.rendering.inline import Span
        from edge_llm.cli.chat.rendering.markdown import Markdown
        from edge_llm.cli.chat.rendering.thinking import Thinking

        self._console = console
        self._markdown = Markdown(console)
        unicode = console.encoding.startswith("utf")
        bar = [Span("\u2502 " if unicode else "| ", "dim")]
        self._thinking = Thinking(console, bar, hidden=hide_thinking)
        self._sign = "\u2026" if unicode else "..."
        self._waits = False

    def wait(self) -> None:
        """Show a sign until there is more to show."""
        self._waits = True
        self._console.print(self._sign, style="dim", end="")
        self._console.file.flush()

    def thinking(self, text: str) -> None:
        """Show what the next characters of a thinking block settle."""
        if text:
            self._begin()
            self._thinking.write(visible(text))
            self._console.file.flush()

    def text(self, text: str) -> None:
        """Show what the next characters of the content settle."""
        if text:
            self._begin()
            self._thinking.end()
            self._markdown.write(visible(text))
            self._console.file.flush()

    def end(self) -> None:
        """Show what is left."""
        self._begin()
        self._thinking.end()
        self._markdown.end()
        self._console.file.flush()

    def _begin(self) -> None:
        if self._waits:
            self._waits = False
            self._console.file.write("\r\x1b[2K")


def writer(*, plain: bool, hide_thinking: bool) -> Writer:
    """Return what shows the next answer on stdout: Markdown on a terminal that can, unless
    ``plain``."""
    from edge_llm.cli.chat.terminal import is_capable

    if plain or not is_capable(sys.stdout):
        return PlainWriter(sys.stdout, hide_thinking=hide_thinking)
    from rich.console import Console

    return RichWriter(Console(file=sys.stdout, highlight=False), hide_thinking=hide_thinking)
