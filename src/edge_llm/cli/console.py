"""Output of the verbs: answers and JSON on stdout, everything else on stderr."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TextIO

from edge_llm.errors import RequestError


def say(message: str = "") -> None:
    """One line for a person, on stderr."""
    print(message, file=sys.stderr, flush=True)


def complain(message: str, hint: str | None = None) -> None:
    """Say what went wrong and, in ``hint``, what helps, on stderr: the one form of errors. A stderr
    that is closed or full changes nothing about the error."""
    red, bold, plain = ("\x1b[31m", "\x1b[1m", "\x1b[0m") if coloured(sys.stderr) else ("", "", "")
    with suppress(OSError):
        say(f"{red}error:{plain} {_between_words(message, len('error: '))}")
        if hint:
            say(f"{bold}hint:{plain} {_between_words(hint, len('hint: '))}")


def _between_words(text: str, indent: int) -> str:
    """Return ``text``, which follows ``indent`` characters, folded between words on a terminal;
    `commands` stay whole, to be copied."""
    if not sys.stderr.isatty():
        return text
    space, width = "\0", shutil.get_terminal_size().columns - indent
    whole = re.sub(r"`[^`\n]*`", lambda command: command[0].replace(" ", space), text)
    lines = [
        part
        for line in whole.splitlines()
        for part in textwrap.wrap(
            line, max(width, 20), break_long_words=False, break_on_hyphens=False
        )
        or [""]
    ]
    return ("\n" + " " * indent).join(lines).replace(space, " ")


def coloured(stream: TextIO) -> bool:
    """Tell whether to write in colour: to a terminal that has any, unless NO_COLOR is set, and
    wherever FORCE_COLOR is."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def print_json(document: Any) -> None:
    """Print the one JSON document of ``--json``, on stdout."""
    print(json.dumps(document, ensure_ascii=False, allow_nan=False))


def check_text(text: str) -> None:
    """Check what a person has typed or piped: bytes that are no text come as lone surrogates, which
    no encoder takes.

    Raises:
        RequestError: it is no text.
    """
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise RequestError("what was typed is not valid text in this terminal's encoding") from exc


def columns() -> int | None:
    """Return how wide output may be: the terminal, or COLUMNS; None in a pipe, where nothing is
    folded."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        return max(shutil.get_terminal_size().columns, 20)
    return None


def fitted(text: str) -> str:
    """Return ``text`` with lines that are too wide folded between words; what follows goes under
    the line's second column, or is indented."""
    width = columns()
    if width is None:
        return text
    return "\n".join(part for line in text.splitlines() for part in _folded(line, width))


def _folded(line: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    gap = re.match(r"\s*\S+(?: \S+)*? {2,}", line)
    indent = len(line) - len(line.lstrip()) + 2
    if gap is not None and gap.end() <= width // 2:
        indent = gap.end()
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=" " * indent,
        drop_whitespace=True,
        break_on_hyphens=False,
        replace_whitespace=False,
    )


def table(
    head: Sequence[str], rows: Sequence[Sequence[object]], *, optional: Sequence[str] = ()
) -> str:
    """Return columns padded to their widest cell, numbers to the right. Where that is wider than
    the terminal, columns of ``optional`` are left out, the first one first, and then texts are
    folded within their cells."""
    cells = [list(head), *([_cell(value) for value in row] for row in rows)]
    right = [
        all(isinstance(row[column], int | float) or row[column] is None for row in rows)
        for column in range(len(head))
    ]
    kept = list(range(len(head)))
    room, dropped = columns(), [head.index(name) for name in optional]
    while room is not None and _width(cells, kept) > room and dropped:
        kept.remove(dropped.pop(0))
    cells = [[row[column] for column in kept] for row in cells]
    right = [right[column] for column in kept]
    if room is not None and _width(cells, range(len(kept))) > room:
        return _narrow(cells, right, room)
    widths = [max(len(row[column]) for row in cells) for column in range(len(kept))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    )


def _width(cells: Sequence[Sequence[str]], kept: Sequence[int]) -> int:
    widths = (max(len(row[column]) for row in cells) for column in kept)
    return sum(widths) + 2 * (len(kept) - 1)


def _narrow(cells: Sequence[Sequence[str]], right: Sequence[bool], width: int) -> str:
    from rich.console import Console
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=False)
    head, *rows = cells
    for index, (name, to_right) in enumerate(zip(head, right, strict=True)):
        # Words of headings may go under each other; numbers stay whole.
        words = [word for cell in (name, *(row[index] for row in rows)) for word in cell.split()]
        made.add_column(
            justify="right" if to_right else "left",
            overflow="fold",
            min_width=max(map(len, words), default=1) if to_right else 8,
        )
    for row in cells:
        made.add_row(*row)
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, markup=False, highlight=False)
    console.print(made)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def human_bytes(count: float) -> str:
    """Return bytes for people: 1234567 is "1.2 MB" (powers of 1000, as file managers count)."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


class Progress:
    """A progress bar of the stages of an export or a download, on stderr; silent where that is no
    terminal. Called as ``progress(stage, done, total)``; what cannot be counted has a total of 1.

    The bar is drawn by a thread of its own, so that the seconds go on where nothing is reported."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage: str | None = None
        self._task: Any = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            return
        if self._bar is None:
            self._bar = _bar()
            self._bar.start()
        counted = total > 1
        if stage != self._stage:
            if self._task is not None:
                self._bar.remove_task(self._task)
            unit = "bytes" if stage in _IN_BYTES else ""
            self._task = self._bar.add_task(stage, total=total if counted else None, unit=unit)
            self._stage = stage
        if counted:
            self._bar.update(self._task, completed=done, total=total)
        if done >= total:
            self._bar.refresh()  # the end of a stage is seen, however short it was

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._stage = self._task = None


# The stages that count bytes; others count weights, windows or measurements.
_IN_BYTES = ("download", "unpack", "hash sources", "check")


def _bar() -> Any:
    """Return a bar of one stage: its name, the bar, how much of what is done, the rate, the seconds
    so far."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class Amount(ProgressColumn):
        """12.3 of 98.4 MB, 40.1 MB/s; or a share, where it is no bytes."""

        def render(self, task: Any) -> Text:
            if task.total is None:
                return Text("")
            if task.fields["unit"] != "bytes":
                return Text(f"{task.percentage:.0f}%")
            rate = f", {human_bytes(task.speed)}/s" if task.speed else ""
            return Text(f"{task.completed / 1e6:.1f} of {task.total / 1e6:.1f} MB{rate}")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        Amount(),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
        transient=True,
    )
