"""Tables: shown when they are whole, since each row may widen a column."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from edge_llm.cli.chat.rendering.inline import Span, of_tokens, parser

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

Justify = Literal["left", "center", "right"]

_NARROWEST = 6  # of a column, with its border
_BAR = re.compile(r"(?<!\\)\|")


def table_of(rows: list[str], width: int) -> Table | None:
    """Return the table that some lines of Markdown make; None if they make none, or one that would
    not show all they say in ``width`` columns."""
    head = _cells(rows[0])
    if head * _NARROWEST > width:
        return None
    if any(_cells(row) > head for row in rows):
        return None  # Markdown drops what is right of the last column
    tokens = parser().parse("\n".join(row.strip() for row in rows))
    if not tokens or tokens[0].type != "table_open" or tokens[-1].type != "table_close":
        return None
    from rich.table import Table

    made = Table()
    cells: list[Text] = []
    justify: Justify = "left"
    for token in tokens:
        if token.type in ("th_open", "td_open"):
            justify = _justify(str(token.attrGet("style") or ""))
        elif token.type == "inline":
            cells.append(styled(of_tokens(token.children or [])))
        elif token.type == "th_close":
            made.add_column(cells.pop(), justify=justify, overflow="fold")
        elif token.type == "tr_close" and cells:
            made.add_row(*cells)
            cells = []
    return made


def styled(spans: list[Span]) -> Text:
    """Return spans as rich's text."""
    from rich.text import Text

    return Text.assemble(*((span.text, span.style) for span in spans))


def _cells(row: str) -> int:
    return len(_BAR.split(row.strip().removeprefix("|").removesuffix("|")))


def _justify(style: str) -> Justify:
    name = style.removeprefix("text-align:")
    return name if name in ("center", "right") else "left"  # type: ignore[return-value]
