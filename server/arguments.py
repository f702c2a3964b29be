"""The arguments of a tool call, for dialects that write them as an object and not as text."""

from __future__ import annotations

import json
from typing import Any

# The key under which what is no JSON object is told, as Anthropic's API recommends it.
INVALID = "INVALID_JSON"


def arguments_object(text: str) -> dict[str, Any]:
    """Return the arguments that a model wrote as JSON text. What is none, as in an answer that was
    cut short, is told as it is; no text at all is no arguments."""
    if not text.strip():
        return {}
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return {INVALID: text}
    return value if isinstance(value, dict) else {INVALID: text}


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
