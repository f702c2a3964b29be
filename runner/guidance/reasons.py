"""Reasons for which a library refuses a grammar, without the grammar's text, which is the
client's own: what they quote of it is cut, places and names of keywords stay."""

from __future__ import annotations

import re
from typing import Any

from edge_llm.runner.guidance.schema import KEYWORDS

_QUOTED = re.compile(r"'([^']*)'|\"[^\"]*\"|`[^`]*`")
# What stands in front of a text of the grammar -> up to where it is kept.
_NAMING = re.compile(
    "(Invalid type|Unknown format|[Uu]nknown common regex|unknown special token|unknown name"
    "|unknown grammar)\\b.*$",
    re.DOTALL,
)
_MOST = 300  # characters


def reason_of(error: object) -> str:
    """Return a library's reason in short, safe to be told."""
    text = str(error)
    found = re.search("^error: (.*)$", text, re.MULTILINE)  # of a regular expression
    if found is not None:
        text = found[1]
    for mark in ("\n<", "\n   ", ", got ", ", '", "; following"):
        text = text.partition(mark)[0]
    text = _QUOTED.sub(_kept, _NAMING.sub(r"\1", text))
    return text.strip()[:_MOST]


def _kept(quoted: re.Match[str]) -> Any:
    return quoted[0] if quoted[1] in KEYWORDS else "…"
