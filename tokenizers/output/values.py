"""Arguments that are written as text, and what a tool's schema says they are."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from edge_llm.parsed import Tool

_LITERALS = {"True": "true", "False": "false", "None": "null"}  # as Python's templates write them
_ANY = frozenset({"string", "number", "integer", "boolean", "null", "object", "array"})
_MAX_DEPTH = 16
_MAX_PYTHON = 10_000  # characters


def schema_of(tool: Tool | None, key: str) -> Any:
    """Return the schema of an argument; True, which says nothing, where there is none."""
    if tool is None:
        return True
    properties = tool.parameters.get("properties")
    return properties.get(key, True) if isinstance(properties, Mapping) else True


def kinds_of(schema: Any, root: Mapping[str, Any], depth: int = 0) -> frozenset[str]:
    """Return the JSON types that a value may have."""
    if not isinstance(schema, Mapping) or depth == _MAX_DEPTH:
        return _ANY
    if "const" in schema:
        return frozenset({_kind(schema["const"])})
    if isinstance(schema.get("enum"), list):
        return frozenset(map(_kind, schema["enum"]))
    kind = schema.get("type")
    if isinstance(kind, str):
        return frozenset({kind})
    if isinstance(kind, list):
        return frozenset(item for item in kind if isinstance(item, str))
    if "$ref" in schema:
        return kinds_of(referred(schema["$ref"], root), root, depth + 1)
    for several in ("anyOf", "oneOf", "allOf"):
        options = schema.get(several)
        if isinstance(options, list) and options:
            found = [kinds_of(option, root, depth + 1) for option in options]
            meet = frozenset.intersection if several == "allOf" else frozenset.union
            return meet(*found)
    return _ANY


def referred(reference: Any, root: Mapping[str, Any]) -> Any:
    """Return what a ``$ref`` of the form ``#/…`` means; True if nothing is there."""
    value: Any = root
    if not isinstance(reference, str) or not reference.startswith("#"):
        return True
    for step in reference[1:].split("/")[1:]:
        if not isinstance(value, Mapping):
            return True
        value = value.get(step.replace("~1", "/").replace("~0", "~"), True)
    return value


def json_of(text: str, kinds: frozenset[str]) -> str:
    """Return an argument as JSON text.

    It is what the schema says if it can be read so, and a string if not.
    """
    stripped = text.strip()
    written = _LITERALS.get(stripped, stripped)
    if "boolean" in kinds and stripped.lower() in ("true", "false"):
        written = stripped.lower()
    try:
        value = json.loads(written)
    except (ValueError, RecursionError):
        return _python(stripped, kinds) or json.dumps(text, ensure_ascii=False)
    kind = _kind(value)
    if kind == "string" or not (kind in kinds or (kind == "integer" and "number" in kinds)):
        whole = kind == "number" and "integer" in kinds and value == value // 1
        return written if whole else json.dumps(text, ensure_ascii=False)
    return written if kind != "number" or value == value else json.dumps(text)


def _python(text: str, kinds: frozenset[str]) -> str | None:
    """Return the JSON text of an object or list as Python's templates write them."""
    if text[:1] not in ("{", "[") or not kinds & {"object", "array"} or len(text) > _MAX_PYTHON:
        return None
    try:
        return json.dumps(ast.literal_eval(text), ensure_ascii=False)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def escaped(text: str) -> str:
    """Return text as it stands within a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "object" if isinstance(value, Mapping) else "array"
