"""Output of the verbs: answers and JSON on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from edge_llm.errors import RequestError


def say(message: str = "") -> None:
    """One line for a person, on stderr."""
    print(message, file=sys.stderr, flush=True)


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


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return columns padded to their widest cell, numbers to the right."""
    cells = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    right = [
        all(isinstance(row[column], int | float) or row[column] is None for row in rows)
        for column in range(len(head))
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    )


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
    """Progress bars of the stages of an export or a download, on stderr; silent if that is not a
    terminal. Called as ``progress(stage, done, total)``."""

    def __init__(self) -> None:
        self._stage: str | None = None
        self._bar: Any = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if not sys.stderr.isatty():
            return
        if stage != self._stage:
            from tqdm import tqdm

            self.close()
            self._stage = stage
            self._bar = tqdm(desc=stage, total=total, leave=False, unit_scale=True)
        self._bar.n = done
        self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = self._stage = None
