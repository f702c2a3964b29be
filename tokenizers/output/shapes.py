"""JSON schemas as grammars for values that are not written as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edge_llm.errors import RequestError
from edge_llm.tokenizers.output.lark import either, json_rule, literal, sequence
from edge_llm.tokenizers.output.values import kinds_of, referred

# Keywords that say nothing about a value, and those that only the root may have.
_NOTES = frozenset(
    {
        "$comment", "$id", "$schema", "default", "deprecated", "description", "example", "examples",
        "readOnly", "title", "writeOnly", "$defs", "definitions", "x-guidance", "strict",
    }
)  # fmt: skip
_STRINGS = frozenset({"type", "enum", "const", "pattern", "format", "minLength", "maxLength"})
_FORMATS = {
    "date": r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])",
    "time": r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})",
    "uuid": r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "ipv4": r"((25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])",
    "email": r"[a-zA-Z0-9_+-]+(\.[a-zA-Z0-9_+-]+)*@([a-zA-Z0-9-]+\.)+[a-zA-Z]{2,}",
}
_FORMATS["date-time"] = _FORMATS["date"] + "T" + _FORMATS["time"]
_MAX_RULES = 2000


class Shapes:
    """Grammars for the values of one schema.

    Args:
        root: the schema of an object.
        param: the field of a request that it came in.
        prefix: begins the names of all `rules`.
        end: what follows a string, which none may hold.
        end_rule: how a grammar writes that; a control token, if there is one for it.
    """

    def __init__(
        self, root: Mapping[str, Any], param: str, prefix: str, end: str, end_rule: str
    ) -> None:
        self.rules: dict[str, str] = {}
        self._root, self._param, self._prefix = root, param, prefix
        self._end, self._end_rule = end, end_rule

    def properties(self) -> Iterator[tuple[str, Any, bool]]:
        """Yield name, schema and whether it is required of each property of the root.

        Raises:
            RequestError: the root says more about its properties than can be enforced.
        """
        yield from self.properties_of(self._root)

    def properties_of(self, schema: Mapping[str, Any]) -> Iterator[tuple[str, Any, bool]]:
        """Yield the same of another object."""
        known = {"type", "properties", "required", "additionalProperties"}
        self.only(schema, known)
        if schema.get("additionalProperties") not in (None, False, True):
            raise self.refused("additionalProperties")
        properties = schema.get("properties") or {}
        required = schema.get("required") or []
        for name in required:
            if name not in properties:
                raise self.refused("required")
        for name, of in properties.items():
            if re.search(r"[<>\n:,{}\[\]\"]", name) or not name:
                raise self.refused(f"properties/{name}")
            yield name, of, name in required

    def in_order(self, entries: Sequence[tuple[str, bool]], separator: str) -> str:
        """Return the rule of entries in this order, of which those that are not required may be
        left out; it is empty if there are none."""
        # With optional entries before the first one that is there, the separators depend on it.
        rest = ""
        for position in range(len(entries) - 1, -1, -1):
            entry, required = entries[position]
            later = f"({separator} {rest})" if rest else ""
            must = any(needed for _, needed in entries[position + 1 :])
            here = sequence(entry, later + ("" if must or not later else "?"))
            rest = here if required else either(filter(None, [here, rest]))
            rest = self.add(rest)
        optional = not any(needed for _, needed in entries)
        return (f"{rest}?" if optional else rest) if rest else ""

    def text(self, schema: Any) -> str:
        """Return the rule of a value and its end; it is text if it is a string, and JSON if not."""
        kinds = kinds_of(schema, self._root)
        if kinds == {"string"}:
            return self.string(schema)
        if kinds == {"boolean"} and isinstance(schema, Mapping) and "enum" not in schema:
            return self.add(sequence('("true" | "false" | "True" | "False")', self._end_rule))
        if "string" not in kinds:
            return self.add(sequence(self.json(schema), self._end_rule))
        if isinstance(schema, Mapping) and not _NOTES.union({"type"}).issuperset(schema):
            schema = self.resolved(schema)
            options = schema.get("anyOf", schema.get("oneOf"))
            if options is not None:
                return self.add(either(map(self.text, options)))
            if "enum" in schema:
                return self.add(either(map(self._constant, schema["enum"])))
            raise self.refused(next(key for key in schema if key not in {"type", *_NOTES}))
        others = sorted(kinds - {"string"} - ({"integer"} if "number" in kinds else set()))
        return self.add(either([self.string({}), *(self.text({"type": one}) for one in others)]))

    def string(self, schema: Any) -> str:
        """Return the rule of a string that is written as it is, and its end."""
        schema = self.resolved(schema) if isinstance(schema, Mapping) else {}
        self.only(schema, _STRINGS)
        if "const" in schema:
            return self._constant(schema["const"])
        if "enum" in schema:
            return self.add(either(map(self._constant, schema["enum"])))
        parts = []
        if "minLength" in schema or "maxLength" in schema:
            most = schema.get("maxLength", "")
            parts.append(f"/(?s:.{{{int(schema.get('minLength', 0))},{most}}})/")
        if "pattern" in schema:
            parts.append(f"/{_searching(str(schema['pattern']))}/")
        if "format" in schema:
            known = _FORMATS.get(str(schema["format"]))
            if known is None:
                raise self.refused(f"format {schema['format']}")
            parts.append(f"/{known}/")
        body = " & ".join(parts) or "/(?s:.*)/"
        if self._end_rule.startswith("<["):  # no text holds a control token
            return self.add(sequence(self.add(body, terminal=True), self._end_rule))
        return self.add(body, attributes=f"[suffix={literal(self._end)}]")

    def json(self, schema: Any) -> str:
        """Return the rule of a value that is written as JSON."""
        shared = {key: self._root[key] for key in ("$defs", "definitions") if key in self._root}
        schema = dict(schema) if isinstance(schema, Mapping) else {}
        return self.add(json_rule({**schema, **shared}))

    def _constant(self, value: Any) -> str:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return self.add(sequence(literal(text) if text else "", self._end_rule))

    def resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what a schema refers to, if it does.

        Raises:
            RequestError: nothing is there.
        """
        for _ in range(16):
            if "$ref" not in schema:
                return schema
            found = referred(schema["$ref"], self._root)
            if not isinstance(found, Mapping):
                break
            schema = found
        raise self.refused("$ref")

    def only(self, schema: Mapping[str, Any], known: set[str] | frozenset[str]) -> None:
        """Check that a schema has no other keywords than these.

        Raises:
            RequestError: it has one.
        """
        for keyword in schema:
            if keyword not in known and keyword not in _NOTES:
                raise self.refused(keyword)

    def refused(self, keyword: str) -> RequestError:
        """Return the error for a keyword that cannot be enforced."""
        return RequestError(
            f"{keyword!r} cannot be enforced in the way in which this model writes calls",
            param=self._param,
        )

    def add(self, body: str, *, terminal: bool = False, attributes: str = "") -> str:
        """Add a rule and return its name."""
        if len(self.rules) >= _MAX_RULES:
            raise RequestError(f"a schema of more than {_MAX_RULES} parts", param=self._param)
        name = f"{self._prefix}{len(self.rules)}"
        name = name.upper() if terminal else name
        self.rules[name + attributes] = body
        return name


def _searching(pattern: str) -> str:
    """Return a JSON schema's pattern, which is looked for anywhere, as one of the whole."""
    head = "" if pattern.startswith("^") else "(?s:.*)"
    tail = "" if pattern.endswith("$") and not pattern.endswith(r"\$") else "(?s:.*)"
    body = pattern.removeprefix("^")
    body = body[:-1] if not tail else body
    return f"{head}({body}){tail}".replace("/", r"\/")
