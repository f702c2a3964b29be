"""Reasons for which a library refuses a grammar or a schema, in a line: what they quote of it,
which may be all of it, is cut short."""

from __future__ import annotations

import re

_QUOTED = re.compile(r"'([^']*)'|\"((?:[^\"\\]|\\.)*)\"|`([^`]*)`")
# What stands in front of a text of the grammar, which ends the line.
_NAMING = re.compile(
    r"(Invalid type: |Unknown format: |common regex: |unknown grammar |, got )(.*)$"
)
_SHOWN = 40  # characters of a quotation
_MOST = 300  # characters


def reason_of(error: object) -> str:
    """Return a library's reason in a line of printable characters."""
    text = str(error)
    found = re.search("^error: (.*)$", text, re.MULTILINE)  # of a regular expression
    if found is not None:
        text = f"invalid regex: {found[1]}"
    for mark in ("\n", ", '", "; following"):
        text = text.partition(mark)[0]
    text = _NAMING.sub(lambda naming: naming[1] + shown(naming[2]), text)
    text = _QUOTED.sub(lambda quoted: quoted[0][0] + shown(quoted[0][1:-1]) + quoted[0][-1], text)
    return shown(text.strip(), _MOST)


def shown(text: str, most: int = _SHOWN) -> str:
    """Return the beginning of a text, in printable characters."""
    cut = text if len(text) <= most else f"{text[: most - 3]}..."
    return "".join(character if character.isprintable() else "?" for character in cut)
