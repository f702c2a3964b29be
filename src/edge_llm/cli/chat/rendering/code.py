"""Blocks of code, a line at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_CONTEXT = 40  # lines before one that its colours may depend on; all of them would be slow


class Code:
    """A fenced block. Its lines stand at the edge and are left to the terminal to break, so that
    what is copied is the code and nothing else."""

    def __init__(self, console: Console, fence: str, language: str) -> None:
        self._console = console
        self.fence = fence
        self._language = language.split()[0] if language else ""
        self._lines: list[str] = []
        self._show_fence(language)

    def line(self, line: str) -> None:
        """Show the next line."""
        self._lines = [*self._lines[-_CONTEXT:], line]
        self._console.print(self._coloured(line), soft_wrap=True)

    def close(self) -> None:
        """Show the end of the block."""
        self._show_fence("")

    def _show_fence(self, language: str) -> None:
        from rich.text import Text

        self._console.print(Text(f"{self.fence}{language}", style="dim"), soft_wrap=True)

    def _coloured(self, line: str) -> Text:
        from rich.syntax import Syntax
        from rich.text import Text

        if self._language and line.strip():
            code = "\n".join(self._lines)
            syntax = Syntax("", self._language, theme="ansi_dark", background_color="default")
            if (coloured := syntax.highlight(code)).plain.startswith(code):
                return coloured[len(code) - len(line) : len(code)]
        return Text(line)
