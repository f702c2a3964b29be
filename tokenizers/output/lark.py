"""Parts of grammars in llguidance's Lark that all syntaxes share."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edge_llm.errors import RequestError
from edge_llm.parsed import Tool
from edge_llm.tokenizers.output.syntax import TokenId

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
# Where one of these is, the named properties are not all that the schema says about others.
_OPEN = frozenset(
    {
        "$dynamicRef", "$ref", "additionalProperties", "allOf", "anyOf", "dependentSchemas", "if",
        "oneOf", "patternProperties", "propertyNames", "unevaluatedProperties",
    }
)  # fmt: skip
# JSON as the templates write it. What the model may choose to write between two signs, a small
# one writes without end.
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def literal(text: str) -> str:
    """Return a text as a string of a grammar."""
    return json.dumps(text, ensure_ascii=False)


def mark(text: str, token_id: TokenId) -> str:
    """Return a text of which some parts may be added tokens: ``<[ID]>`` for each of those."""
    whole = token_id(text)
    if whole is not None:
        return f"<[{whole}]>"
    for found in re.finditer(r"<[^<>]+>|\[[A-Z_]+\]", text):
        part = token_id(found[0])
        if part is not None:
            sides = [text[: found.start()], text[found.end() :]]
            before, after = (mark(side, token_id) if side else "" for side in sides)
            return " ".join(filter(None, (before, f"<[{part}]>", after)))
    return literal(text)


def sequence(*parts: str) -> str:
    """Return what follows one another; empty parts are left out."""
    return " ".join(part for part in parts if part)


def either(parts: Iterable[str]) -> str:
    """Return a choice."""
    return "(" + " | ".join(parts) + ")"


def rules(start: str, named: Mapping[str, str]) -> str:
    """Return a grammar."""
    return "".join(f"{name}: {body}\n" for name, body in [("start", start), *named.items()])


def json_rule(schema: Mapping[str, Any]) -> str:
    """Return what JSON of this schema looks like, laid out as templates write it."""
    return "%json " + json.dumps({**schema, "x-guidance": _LAYOUT}, ensure_ascii=False)


def check_names(tools: Sequence[Tool]) -> None:
    """Check that the tools can be told apart in what a model writes.

    Raises:
        RequestError: a name that OpenAI's interface does not allow, or that two tools have.
    """
    if not tools:
        raise RequestError("no tools to call, expected at least one", param="tools")
    seen: set[str] = set()
    for index, tool in enumerate(tools):
        param = f"tools[{index}].function.name"
        if _NAME.fullmatch(tool.name) is None:
            raise RequestError(
                f"the name of a tool is {tool.name[:80]!r}, expected 1 to 64 letters, digits, "
                "'_' and '-'",
                param=param,
            )
        if tool.name in seen:
            raise RequestError(f"two tools are named {tool.name!r}", param=param)
        seen.add(tool.name)


def arguments_schema(tool: Tool, index: int) -> dict[str, Any]:
    """Return the schema of a tool's arguments as they are enforced: an object, without properties
    that the schema does not name where it names any and says nothing else about others. A tool
    without a schema takes no arguments.

    Raises:
        RequestError: it is no schema of an object.
    """
    schema = dict(tool.parameters) or {"properties": {}}
    kind = schema.setdefault("type", "object")
    if kind != "object":
        raise RequestError(
            "the parameters of a tool are of another type than 'object'",
            param=f"tools[{index}].function.parameters",
        )
    if "properties" in schema and _OPEN.isdisjoint(schema):
        schema["additionalProperties"] = False
    return schema
