"""One line of Markdown that is shown while it comes."""

from __future__ import annotations

from unicodedata import east_asian_width

from edge_llm.cli.chat.rendering.inline import Span, literal, opened, spans
from edge_llm.cli.chat.rendering.wrapping import Rows

_PATIENCE = 200  # characters that wait for the end of a mark; then the mark is a character
_TAIL = 12
_ENOUGH = 400  # characters that are read again for each piece, unless they are put away


class GrowingLine:
    """The text of a line, of which is shown what cannot change any more."""

    def __init__(self, rows: Rows, style: str = "") -> None:
        self._rows = rows
        self._style = style
        self._taken = 0  # characters of the text
        self._source = ""  # the same with marks made literal
        self._shown = ""

    def grow(self, text: str) -> None:
        """Show what is settled of a text, all of which begins with what was given before."""
        self._take(text)
        whole = self._source[: _last_break(self._source)]
        place = opened(whole)
        while place is not None and len(self._source) - place > _PATIENCE:
            self._source = literal(self._source, place)
            whole = self._source[: _last_break(self._source)]
            place = opened(whole)
        settled = whole if place is None else _whole_words(whole[:place])
        self._show(settled)
        if len(settled) > _ENOUGH and _is_seam(self._source, len(settled)):
            self._source, self._shown = self._source[len(settled) :], ""

    def finish(self, text: str) -> None:
        """Show the rest, the line being whole."""
        self._take(text)
        self._show(self._source)
        self._rows.end()

    def _take(self, text: str) -> None:
        self._source += text[self._taken :]
        self._taken = len(text)

    def _show(self, source: str) -> None:
        found = spans(source)
        text = "".join(span.text for span in found)
        skip = _beyond(self._shown, text)
        new: list[Span] = []
        for span in found:
            if len(span.text) > skip:
                new.append(Span(span.text[skip:], f"{self._style} {span.style}".strip()))
            skip = max(0, skip - len(span.text))
        self._rows.write(new)
        self._shown = text


def _beyond(shown: str, text: str) -> int:
    """Return where in ``text`` that begins which was not shown yet. Where a mark was misjudged, it
    goes on behind the last characters that were shown."""
    if text.startswith(shown):
        return len(shown)
    tail = shown[-_TAIL:]
    place = text.find(tail, max(0, len(shown) - 2 * _TAIL))
    return place + len(tail) if place >= 0 else _common(text, shown)


def _common(one: str, other: str) -> int:
    """Return how many characters two texts begin with together."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _is_seam(text: str, place: int) -> bool:
    """Tell whether what begins at ``place`` is read without what is before it."""
    return text[place - 1].isspace() or text[place : place + 1] not in tuple("*_~`[!")


def _whole_words(text: str) -> str:
    """Return a settled text without what stands at its end of a word, unless marks end there."""
    words = text[: _last_break(text)]
    return words if opened(words) is None else text


def _last_break(text: str) -> int:
    """Return how many characters there are up to the last place between words."""
    for place in range(len(text), 0, -1):
        character = text[place - 1]
        if character.isspace() or east_asian_width(character) in "WF":
            return place
    return 0
