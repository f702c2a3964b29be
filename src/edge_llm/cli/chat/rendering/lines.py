"""Tell what a line of Markdown is by its beginning."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["blank", "fence", "heading", "rule", "item", "quote", "row", "text"]

_FENCE = re.compile(r"(\s*)(`{3,}|~{3,})\s*([^`]*)$")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:\s+|$)")
_RULE = re.compile(r"\s*([-*_])(?:\s*\1){2,}\s*$")
_ITEM = re.compile(r"(\s*)([-*+]|\d{1,9}[.)])(?:\s+|$)")
_QUOTE = re.compile(r"\s*((?:>\s?)+)")
_DELIMITERS = re.compile(r"\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$")
# The beginning of a line, as long as it may be something else yet.
_UNCLEAR = re.compile(
    r"\s*([-*_+=](\s*[-*_+=])*\s*|#{1,6}\s*|\d{1,9}[.)]?\s*|(>\s*)+|`{1,}|~{1,})?$"
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line taken apart.

    Attributes:
        indent: columns before it.
        mark: what its kind is written with ("##", "-", "3.", the fence).
        rest: its text without indent and mark; the language of a fence.
    """

    kind: Kind
    indent: int
    mark: str
    rest: str


def line_of(text: str) -> Line:
    """Return what a whole line is, or the beginning of one that is not `unclear`."""
    bare = text.expandtabs(4)
    indent = len(bare) - len(bare.lstrip())
    if not bare.strip():
        return Line("blank", 0, "", "")
    if (found := _FENCE.match(bare)) is not None:
        return Line("fence", indent, found[2], found[3].strip())
    if _RULE.match(bare):
        return Line("rule", indent, "", "")
    if (found := _HEADING.match(bare)) is not None:
        return Line("heading", indent, found[1], bare[found.end() :])
    if (found := _ITEM.match(bare)) is not None:
        return Line("item", indent, found[2], bare[found.end() :])
    if (found := _QUOTE.match(bare)) is not None:
        return Line("quote", indent, found[1], bare[found.end() :])
    kind: Kind = "row" if "|" in bare else "text"
    return Line(kind, indent, "", bare.lstrip())


def unclear(text: str) -> bool:
    """Tell whether the beginning of a line does not say yet what the line is."""
    bare = text.lstrip()
    return bool(_UNCLEAR.match(text)) or bare.startswith(("```", "~~~")) or "|" in bare


def is_delimiters(text: str) -> bool:
    """Tell whether a line is the second of a table."""
    return "|" in text and "-" in text and bool(_DELIMITERS.match(text))


def is_closed(fence: str, text: str) -> bool:
    """Tell whether a line closes the block of code that ``fence`` opened."""
    bare = text.strip()
    return len(bare) >= len(fence) and bare == fence[0] * len(bare)
