"""Markdown shown on a terminal while it comes, line by line and word by word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_llm.cli.chat.rendering.code import Code
from edge_llm.cli.chat.rendering.inline import Span
from edge_llm.cli.chat.rendering.line import GrowingLine
from edge_llm.cli.chat.rendering.lines import Line, is_closed, is_delimiters, line_of, unclear
from edge_llm.cli.chat.rendering.tables import styled, table_of
from edge_llm.cli.chat.rendering.wrapping import Rows

if TYPE_CHECKING:
    from rich.console import Console

_HEADINGS = {1: "bold underline", 2: "bold"}


class Markdown:
    """Shows Markdown. A line break in it is one on the terminal, since models mean theirs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows = Rows(console)
        self._text = ""  # of the line that is not whole yet
        self._growing: GrowingLine | None = None  # the same line, once its kind is known
        self._code: Code | None = None
        self._held: list[str] = []  # lines that may be, or are, a table
        self._blanks = False
        self._anything = False
        self._in_list = False
        unicode = console.encoding.startswith("utf")
        self._bullet, self._bar = ("\u2022", "\u258c") if unicode else ("*", "|")

    def write(self, text: str) -> None:
        """Show what the next characters settle."""
        *whole, last = text.split("\n")
        for end in whole:
            line, self._text = self._text + end, ""
            self._line(line)
        self._text += last
        if self._text:
            self._preview(self._text)

    def end(self) -> None:
        """Show all that is left, and end the line."""
        if self._text:
            line, self._text = self._text, ""
            self._line(line)
        self._release()

    def _line(self, text: str) -> None:
        """Show a whole line."""
        if self._code is not None:
            if is_closed(self._code.fence, text):
                self._code.close()
                self._code = None
            else:
                self._code.line(text)
            return
        if self._growing is not None:
            self._growing.finish(line_of(text).rest)
            self._growing = None
            return
        table = len(self._held) > 1
        if self._held and ("|" in text if table else is_delimiters(text)):
            self._held.append(text)
            self._status(f"(a table, {len(self._held) - 2} rows)")
            return
        self._release()
        line = line_of(text)
        if line.kind == "row":
            self._held = [text]
        elif line.kind == "blank":
            self._blanks = self._anything
        elif line.kind == "fence":
            self._space()
            self._code = Code(self._console, line.mark, line.rest)
        elif line.kind == "rule":
            self._space()
            self._console.rule(style="dim")
        elif self._is_indented_code(line):
            self._space()
            self._console.print(styled([Span(text)]), soft_wrap=True)
        else:
            self._begin(line).finish(line.rest)

    def _preview(self, text: str) -> None:
        """Show what is settled of a line that is not whole."""
        if self._code is not None:
            return
        if self._growing is None:
            if len(self._held) > 1 or unclear(text):
                return
            line = line_of(text)
            if line.kind == "blank" or self._is_indented_code(line):
                return
            self._release()
            self._growing = self._begin(line)
        self._growing.grow(line_of(text).rest)

    def _begin(self, line: Line) -> GrowingLine:
        self._space()
        head, hanging, style = self._frame(line)
        self._in_list = line.kind == "item" or (self._in_list and line.indent > 0)
        self._rows.begin(head, hanging)
        return GrowingLine(self._rows, style)

    def _frame(self, line: Line) -> tuple[list[Span], list[Span], str]:
        """Return what stands before a line and before its further rows, and its style."""
        indent = min(line.indent, self._console.width // 3)
        if line.kind == "heading":
            return [], [], _HEADINGS.get(len(line.mark), "bold italic")
        if line.kind == "quote":
            bars = [Span(f"{self._bar} " * line.mark.count(">"), "dim")]
            return bars, bars, ""
        if line.kind == "item":
            mark = f"{line.mark if line.mark[0].isdigit() else self._bullet} "
            return [Span(" " * indent + mark)], [Span(" " * (indent + len(mark)))], ""
        spaces = [Span(" " * indent)] if indent else []
        return spaces, spaces, ""

    def _is_indented_code(self, line: Line) -> bool:
        return line.kind in ("text", "item") and line.indent >= 4 and not self._in_list

    def _release(self) -> None:
        """Show the table that was held back, or the lines if they are none."""
        held, self._held = self._held, []
        if not held:
            return
        self._status("")
        if len(held) > 1 and (table := table_of(held, self._console.width)) is not None:
            self._space()
            self._console.print(table)
            return
        for text in held:
            line = line_of(text)
            self._begin(line).finish(line.rest)

    def _space(self) -> None:
        """Show the blank lines before something as one."""
        if self._blanks:
            self._rows.newline()
        self._blanks, self._anything = False, True

    def _status(self, text: str) -> None:
        """Show a few words until something else is shown."""
        if self._console.is_terminal:
            self._console.file.write("\r\x1b[2K" if not text else f"\r\x1b[2m{text}\x1b[0m")
            self._console.file.flush()
