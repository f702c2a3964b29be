"""How much longer a ``tokenizer.json`` may make text before it cuts it.

A few replacements in a row, each harmless, turn one letter into more than any memory holds; the
library then ends the process, even while it loads a file whose added tokens are normalized. So the
file is looked at before the library sees it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from edge_llm.errors import TokenizerError

MAX_GROWTH = 256.0  # SentencePiece's spelling of spaces has 12
# What can grow without a bound of its own, unless letters are hidden in escapes.
_SUSPECT = re.compile(rb'"type"\s*:\s*"(?:Replace|Prepend|Precompiled)"|\\u00[4-7]')
# Bytes of UTF-8 that the others make of one: compatibility forms have up to 11, the others up to 3.
_FACTORS = {"NFKC": 11.0, "NFKD": 11.0}
_OTHERS = 3.0


def check_growth(data: bytes) -> None:
    """
    Args:
        data: the bytes of a ``tokenizer.json``, or of what should be one.

    Raises:
        TokenizerError: its normalizer could make text more than MAX_GROWTH times as long, or
            cannot be made out.
    """
    if not _SUSPECT.search(data):
        return
    try:
        growth = math.prod(map(_factor, _steps(json.loads(data).get("normalizer"))))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as exc:
        raise TokenizerError("not a readable tokenizer.json: its normalizer is damaged") from exc
    if growth > MAX_GROWTH:
        raise TokenizerError(
            f"the normalizer could make text {growth:.3g} times as long, at most {MAX_GROWTH:g} "
            "times is supported"
        )


def _steps(normalizer: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """The normalizer as a flat list."""
    if normalizer is None:
        return
    if normalizer["type"] == "Sequence":
        for inner in normalizer["normalizers"]:
            yield from _steps(inner)
    else:
        yield normalizer


def _factor(step: Mapping[str, Any]) -> float:
    """At most how much longer a step makes a text, in bytes."""
    match step["type"]:
        case "Replace":
            pattern = step["pattern"]
            found = len(pattern["String"].encode()) if "String" in pattern else 0
            # An expression can match nothing at all, before every character.
            put = len(step["content"].encode())
            return max(1.0, put / found) if found else 1.0 + put
        case "Prepend":
            return 1.0 + len(step["prepend"].encode())
        case "Precompiled":
            return math.inf  # a table that may say anything
        case kind:
            return _FACTORS.get(kind, _OTHERS)
