"""Words put into rows of the terminal's width, one after the other, never moved again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from edge_llm.cli.chat.rendering.inline import Span


class Rows:
    """Rows of words. The width is asked for at each word, so that a resized terminal is used from
    the next word on. A word that is wider than the terminal is left to the terminal to break, so
    that a copied address is whole."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._column = 0
        self._hanging: list[Span] = []
        self._indent = 0
        self._spaces = self._spaces_style = ""
        self._word: list[tuple[str, str]] = []
        self._word_cells = 0

    def begin(self, head: list[Span], hanging: list[Span]) -> None:
        """Begin a line with ``head``; its further rows begin with ``hanging``."""
        self._hanging, self._indent = hanging, _cells(hanging)
        for span in head:
            self._print(span.text, span.style)

    def write(self, spans: list[Span]) -> None:
        """Write whole words, or parts of a line between which it may be broken."""
        from rich.cells import cell_len

        for span in spans:
            for character in span.text:
                if character.isspace() and character != "\u00a0":
                    self._place()
                    self._spaces, self._spaces_style = self._spaces + " ", span.style
                    continue
                cells = cell_len(character)
                if cells > 1:  # a row may end before and behind such characters
                    self._place()
                self._word.append((character, span.style))
                self._word_cells += cells
                if cells > 1:
                    self._place()
        self._place()

    def end(self) -> None:
        """End the line."""
        self._spaces = ""
        self._hanging = []
        self.newline()

    def newline(self) -> None:
        """Go to the beginning of the next row."""
        self._console.file.write("\n")
        self._column = 0

    def _place(self) -> None:
        if not self._word:
            return
        width = self._console.width
        if (
            self._column > self._indent
            and self._column + len(self._spaces) + self._word_cells > width
        ):
            self._spaces = ""
            self.newline()
            for span in self._hanging:
                self._print(span.text, span.style)
        if self._spaces:
            self._print(self._spaces, self._spaces_style)
        text, style = "", self._word[0][1]
        for character, own in self._word:
            if own != style:
                self._print(text, style)
                text, style = "", own
            text += character
        self._print(text, style)
        self._spaces, self._word, self._word_cells = "", [], 0

    def _print(self, text: str, style: str) -> None:
        from rich.cells import cell_len
        from rich.text import Text

        if text:
            self._console.print(Text(text, style=style), end="", soft_wrap=True)
            self._column += cell_len(text)


def _cells(spans: list[Span]) -> int:
    from rich.cells import cell_len

    return sum(cell_len(span.text) for span in spans)
