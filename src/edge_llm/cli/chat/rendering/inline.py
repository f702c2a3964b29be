"""The inline marks of one line of Markdown: bold, code, links."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from string import punctuation
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

_MARKS = re.compile(r"\\.|`+|\*+|_+|~+|!?\[|\]", re.DOTALL)
_STYLES = {"strong": "bold", "em": "italic", "s": "strike", "link": "underline"}
CODE = "cyan"
URL = "dim"


@dataclass(frozen=True, slots=True)
class Span:
    """Text in one style, in the words of rich ("bold italic"; empty: as it is)."""

    text: str
    style: str = ""


@cache
def parser() -> MarkdownIt:
    """Return the parser of lines and tables. Tags and references are text for it: a chat must not
    swallow ``List<int>``."""
    from markdown_it import MarkdownIt

    made = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
    made.disable(["html_block", "html_inline", "reference", "lheading"])
    made.inline.ruler.at("escape", _escape)
    return made


def _escape(state: StateInline, silent: bool) -> bool:
    """Read an escape, but leave the brackets of formulas, ``\\(x\\)``, as they are."""
    from markdown_it.rules_inline import escape

    if state.src[state.pos + 1 : state.pos + 2] in tuple("([{}])"):
        return False
    return escape(state, silent)


def spans(text: str) -> list[Span]:
    """Return the styled text of one line of Markdown, without its marks."""
    found: list[Span] = []
    for token in parser().parseInline(text):
        found += of_tokens(token.children or [])
    return found


def of_tokens(tokens: list[Token]) -> list[Span]:
    """Return the styled text of the children of an inline token."""
    found: list[Span] = []
    styles: list[str] = []
    links: list[tuple[str, int]] = []
    for token in tokens:
        kind, _, edge = token.type.rpartition("_")
        if edge == "open":
            styles.append(_STYLES.get(kind, ""))
            if kind == "link":
                links.append((str(token.attrGet("href") or ""), len(found)))
        elif edge == "close":
            styles.pop()
            if kind == "link":
                href, first = links.pop()
                if href and "".join(span.text for span in found[first:]) != href:
                    found.append(Span(f" ({href})", URL))
        elif token.type == "image":
            found.append(Span(f"{token.content} ({token.attrGet('src')})", URL))
        elif token.type in ("softbreak", "hardbreak"):
            found.append(Span(" "))
        elif token.content:
            style = CODE if token.type == "code_inline" else ""
            found.append(Span(token.content, " ".join(filter(None, [*styles, style]))))
    return found


def opened(text: str) -> int | None:
    """Return where the first mark stands that a later part of the line may complete; None if
    there is none. What is before it means the same whatever follows."""
    open_marks: list[tuple[str, int, int]] = []  # the character, where, how many
    place = 0
    while (found := _MARKS.search(text, place)) is not None:
        mark, start, place = found[0], found.start(), found.end()
        if place == len(text) and mark != "]":
            open_marks.append((mark[-1], start, len(mark)))  # it may be longer yet
        elif mark[0] == "`":
            close = re.compile(rf"(?<!`)`{{{len(mark)}}}(?!`)").search(text, place)
            if close is None or close.end() == len(text):
                open_marks.append(("`", start, len(mark)))
                break
            place = close.end()
        elif mark[-1] == "[":
            open_marks.append(("[", start, 1))
        elif mark == "]":
            place = _close_link(text, start, open_marks)
        elif mark[0] in "*_~":
            _flank(text, start, place, open_marks)
    return min((start for _, start, _ in open_marks), default=None)


def _close_link(text: str, start: int, open_marks: list[tuple[str, int, int]]) -> int:
    """Take a "]" in. Return where to go on."""
    begun = next((i for i in range(len(open_marks))[::-1] if open_marks[i][0] == "["), None)
    if begun is None:
        return start + 1
    if start + 1 == len(text):
        return len(text)  # an address may follow
    if text[start + 1] == "(":
        end = text.find(")", start)
        if end < 0 or end + 1 == len(text):
            return len(text)
        del open_marks[begun:]
        return end + 1
    del open_marks[begun]
    return start + 1


def _flank(text: str, start: int, end: int, open_marks: list[tuple[str, int, int]]) -> None:
    """Take a run of emphasis marks in: it closes what is open, or opens, or is text."""
    mark, length = text[start], end - start
    before = text[start - 1] if start else " "
    after = text[end]
    left = not after.isspace() and (not _is_punctuation(after) or not before.isalnum())
    right = not before.isspace() and (not _is_punctuation(before) or not after.isalnum())
    may_open, may_close = left, right
    if mark == "_":  # not within words
        may_open = left and (not right or _is_punctuation(before))
        may_close = right and (not left or _is_punctuation(after))
    if mark == "~" and length == 1:
        return
    if may_close:
        for index in range(len(open_marks))[::-1]:
            if open_marks[index][0] == "[":
                break  # what is in a link closes nothing before it
            if open_marks[index][0] == mark:
                if open_marks[index][2] == length:
                    del open_marks[index:]
                    return
                break  # runs of unequal length: what they come to, the end of the line shows
    if may_open or (may_close and any(kind == mark for kind, _, _ in open_marks)):
        open_marks.append((mark, start, length))


def _is_punctuation(character: str) -> bool:
    return character in punctuation or unicodedata.category(character).startswith("P")


def literal(text: str, place: int) -> str:
    """Return the line with the mark at ``place`` as a character that is no mark."""
    found = _MARKS.match(text, place)
    mark = found[0] if found is not None else text[place]
    return text[:place] + "".join(f"&#{ord(c)};" for c in mark) + text[place + len(mark) :]
