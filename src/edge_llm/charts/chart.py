"""A chart as every page takes it: the picture, its words and its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LONGEST_LABEL = 40  # characters; a name in a picture is cut beyond them, in the table it is whole


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart.

    Attributes:
        key: a short name, unlike those of the other charts on a page: letters and hyphens.
        title: what is shown, in a few words.
        description: what there is to see, in a sentence or two, for who cannot see it.
        svg: the picture as an ``<svg>`` element that may stand in HTML.
        head: the titles of the table's columns.
        rows: the numbers that were drawn, a row each; floats are shown with four digits.
    """

    key: str
    title: str
    description: str
    svg: str
    head: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


def label(text: str) -> str:
    """Return a name as a picture or a page can hold it: without control characters, which no
    markup can hold, and not too long."""
    shown = printable(text)
    if shown.startswith("_"):  # matplotlib leaves such names out of legends
        shown = f" {shown}"
    return shown if len(shown) <= LONGEST_LABEL else f"{shown[: LONGEST_LABEL - 1]}…"


def printable(text: str) -> str:
    """Return a text with everything that cannot be printed (control characters, halves of
    surrogate pairs) replaced by U+FFFD."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def number(value: object) -> str:
    """Return a cell of a table as text: floats with four digits, None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return printable(str(value))


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lowest, the middle and the highest of ``values``, which are not empty."""
    from statistics import median

    return min(values), median(values), max(values)
