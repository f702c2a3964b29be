"""JSON schemas, before llguidance sees them: what it would pass over is refused by name or taken
out, and sizes are bounded.

llguidance enforces most of JSON Schema and refuses most of the rest; some of it depends on the
neighbours of a keyword. Here every keyword is looked at wherever it is, so that what constrains is
enforced or named in an error. What constrains nothing (titles, defaults, examples, names that no
version of JSON Schema knows) is left out. Options that a client writes for llguidance never reach
it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from edge_llm.errors import RequestError
from edge_llm.runner.guidance.reasons import shown

MOST_BYTES = 512 * 1024  # of a schema as JSON text
_MOST_SCHEMAS = 10_000  # schemas in a schema
_MOST_PROPERTIES = 2_000  # of one object, or of several whose squares make as much: so does time
_DEEPEST = 64  # arrays and objects within each other
_EXACT = 2**53  # whole numbers up to here are exact as binary64, which is what is compared

# Keywords that hold one schema, a list of schemas, schemas by name.
_ONE = frozenset(["additionalItems", "additionalProperties", "items"])
_LISTS = frozenset(["allOf", "anyOf", "oneOf", "prefixItems"])
_NAMED = frozenset(["$defs", "definitions", "patternProperties", "properties"])
# Keywords that are passed on as they are.
_PLAIN = {
    *("$anchor", "$ref", "const", "enum", "exclusiveMaximum", "exclusiveMinimum", "format"),
    *("maxItems", "maxLength", "maxProperties", "maximum", "minItems", "minLength"),
    *("minProperties", "minimum", "multipleOf", "pattern", "required", "type"),
}
# Keywords that constrain and cannot be enforced, with the value at which they say nothing.
_REFUSED: dict[str, Any] = {
    "$dynamicRef": None,
    "$recursiveRef": None,
    "contains": True,
    "dependencies": {},
    "dependentRequired": {},
    "dependentSchemas": {},
    "disallow": [],
    "divisibleBy": None,
    "extends": [],
    "if": None,
    "not": False,
    "propertyNames": True,
    "unevaluatedItems": True,
    "unevaluatedProperties": True,
    "uniqueItems": False,
}
_DRAFTS = re.compile(r"https?://json-schema\.org/(draft-0[4-7]|draft/20(19-09|20-12))/schema#?")
# Formats that tell a form what to show, and allow any text.
_HINTS = frozenset(["binary", "directory-path", "file-path", "password", "path"])
# Formats that llguidance takes more widely than those who read the values: no year 0, no 60th
# second, days that the month has.
_YEAR = r"(?:[1-9]\d{3}|0[1-9]\d{2}|00[1-9]\d|000[1-9])"
_LEAP = r"(?:\d{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DATE = (
    rf"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)"
    rf"|02-(?:0[1-9]|1\d|2[0-8]))|{_LEAP}-02-29)"
)
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
_FORMATS = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
}
_TYPES = ("string", "number", "integer", "boolean", "null", "array", "object")
_MOST_SHOWN = 100  # characters of a place in an error
_COMBINING = frozenset(["$ref", "allOf", "anyOf", "oneOf"])
# One line, with a blank behind colons and commas, as most that models have read: no place where one
# could write blanks for ever, and all that is between two values is forced.
_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "coerce_one_of": False,
    "lenient": False,
}
_SEPARATORS = {"item_separator": (", ", ","), "key_separator": (": ", ":")}
# What an integer that has no bounds is held to: others would have no end of digits, and nobody
# reads more than 64 bits.
_LARGEST = 9 * 10**18


def enforceable(schema: object, param: str | None) -> dict[str, Any]:
    """Return ``schema`` for llguidance, keys in the same order.

    Objects that name their properties and say nothing of others get no others, where that is sure
    to leave some answer: a model that may invent keys does.

    Raises:
        RequestError: with ``param``: not a schema, too large, or something that cannot be enforced.
    """
    if schema is True:
        schema = {}
    if not isinstance(schema, Mapping):
        raise RequestError(f"the JSON schema is {_kind(schema)}, expected an object", param=param)
    _check_size(schema, param)
    prepared = _Preparation(param).root(schema)
    closable = _closable(prepared)
    for part in list(_schemas(prepared)):
        if closable and _open(part):
            part["additionalProperties"] = False
        if (pattern := _FORMATS.get(part.get("format", ""))) is not None:
            del part["format"]
            also = {"type": "string", "pattern": pattern}
            if part.get("type") == "string" and "pattern" not in part:
                part |= also
            else:  # what is no text is of no format
                kinds = ["null", "boolean", "number", "array", "object"]
                part.setdefault("allOf", []).append({"anyOf": [also, {"type": kinds}]})
    return prepared | {"x-guidance": _STYLE | _layout(schema.get("x-guidance"))}


def _layout(options: object) -> dict[str, str]:
    """Return what may be chosen of how JSON is laid out: separators with or without a blank."""
    if not isinstance(options, Mapping):
        return {}
    return {
        name: options[name]
        for name, allowed in _SEPARATORS.items()
        if isinstance(options.get(name), str) and options[name] in allowed
    }


class _Preparation:
    """One schema on its way."""

    def __init__(self, param: str | None) -> None:
        self._param = param
        self._count = 0
        self._squares = 0

    def root(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        draft = schema.get("$schema")
        inner = {k: v for k, v in schema.items() if k not in ("$schema", "$id", "id")}
        prepared = self._object(inner, "")
        if draft is None:
            return prepared
        if not (isinstance(draft, str) and _DRAFTS.fullmatch(draft)):
            self._refuse("$schema", "", "names a version that is not known")
        return {"$schema": draft, **prepared}

    def _refuse(self, keyword: str, place: str, why: str) -> None:
        where = f" at {_place(place)}" if place else ""
        raise RequestError(f"the JSON schema's {keyword!r}{where} {why}", param=self._param)

    def _schema(self, schema: object, place: str) -> dict[str, Any] | bool:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, Mapping):
            raise RequestError(
                f"the JSON schema at {_place(place)} is {_kind(schema)}, "
                "expected an object or a boolean",
                param=self._param,
            )
        return self._object(schema, place)

    def _object(self, schema: Mapping[str, Any], place: str) -> dict[str, Any]:
        self._count += 1
        if self._count > _MOST_SCHEMAS:
            raise RequestError(
                f"the JSON schema has more than {_MOST_SCHEMAS} schemas in it", param=self._param
            )
        prepared: dict[str, Any] = {}
        for keyword, value in schema.items():
            inner = f"{place}/{keyword}"
            if keyword in _PLAIN:
                if self._says(keyword, value, schema, place):
                    prepared[keyword] = value
            elif keyword in _NAMED:
                prepared[keyword] = self._named(keyword, value, inner)
            elif keyword in _LISTS or (keyword == "items" and isinstance(value, list)):
                prepared[keyword] = self._list(keyword, value, inner)
            elif keyword in _ONE:
                prepared[keyword] = self._schema(value, inner)
            elif keyword in _REFUSED:
                if value != _REFUSED[keyword] or type(value) is not type(_REFUSED[keyword]):
                    self._refuse(keyword, place, "cannot be enforced")
            elif keyword == "$id":
                self._refuse(keyword, place, "is not supported inside a schema")
        kinds = schema.get("type")
        if kinds == "integer" or (
            isinstance(kinds, list) and "integer" in kinds and "number" not in kinds
        ):
            if not prepared.keys() & {"minimum", "exclusiveMinimum", "const", "enum"}:
                prepared["minimum"] = -_LARGEST
            if not prepared.keys() & {"maximum", "exclusiveMaximum", "const", "enum"}:
                prepared["maximum"] = _LARGEST
        return prepared

    def _named(self, keyword: str, value: object, place: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise RequestError(
                f"the JSON schema's {keyword!r} is {_kind(value)}, expected an object",
                param=self._param,
            )
        if keyword in ("patternProperties", "properties"):
            self._squares += len(value) ** 2
            if self._squares > _MOST_PROPERTIES**2:
                self._refuse(keyword, place, f"are too many, {len(value)} in the last object")
        return {name: self._schema(item, f"{place}/{name}") for name, item in value.items()}

    def _list(self, keyword: str, value: object, place: str) -> list[Any]:
        if not isinstance(value, list | tuple):
            raise RequestError(
                f"the JSON schema's {keyword!r} is {_kind(value)}, expected an array",
                param=self._param,
            )
        return [self._schema(item, f"{place}/{index}") for index, item in enumerate(value)]

    def _says(self, keyword: str, value: object, schema: Mapping[str, Any], place: str) -> bool:
        """Check a keyword that is passed on; return False if it says nothing here."""
        if keyword == "format":
            kinds = schema.get("type")
            if kinds is not None and "string" not in ([kinds] if isinstance(kinds, str) else kinds):
                return False
            return value not in _HINTS
        if keyword == "type":
            for kind in value if isinstance(value, list | tuple) else [value]:
                if kind not in _TYPES:
                    got = f"'{shown(kind)}'" if isinstance(kind, str) else _kind(kind)
                    self._refuse(keyword, place, f"is {got}, expected one of: {', '.join(_TYPES)}")
        if keyword == "$ref" and not (isinstance(value, str) and value.startswith("#")):
            self._refuse(keyword, place, "points outside the schema; nothing is fetched")
        if keyword == "minProperties" and isinstance(value, int | float) and value > 1:
            # A key that comes twice counts once.
            required = schema.get("required")
            if value > (len(set(required)) if isinstance(required, list) else 0):
                self._refuse(keyword, place, "above 1 and the required ones cannot be enforced")
        if any(abs(number) > _EXACT for number in _whole_numbers(value)):
            self._refuse(keyword, place, "has a whole number beyond 2**53, which is not exact")
        return True


def _place(place: str) -> str:
    """Return the end of a place, whose names are the caller's."""
    cut = place if len(place) <= _MOST_SHOWN else f"...{place[3 - _MOST_SHOWN :]}"
    return shown(cut, _MOST_SHOWN)


def _kind(value: object) -> str:
    return f"of type {type(value).__name__}"


def _check_size(schema: Mapping[str, Any], param: str | None) -> None:
    level: list[Any] = [schema]
    for _ in range(_DEEPEST):
        level = [
            item
            for value in level
            for item in (value.values() if isinstance(value, Mapping) else value)
            if isinstance(item, Mapping | list | tuple)
        ]
        if not level:
            break
    else:
        raise RequestError(f"the JSON schema is nested deeper than {_DEEPEST} levels", param=param)
    try:
        size = len(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise RequestError(f"the JSON schema is not JSON: {error}", param=param) from error
    if size > MOST_BYTES:
        raise RequestError(
            f"the JSON schema has {size} bytes, expected up to {MOST_BYTES}", param=param
        )


def _whole_numbers(value: object) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, float) and abs(value) > _EXACT:
        yield int(value)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _whole_numbers(item)
    elif isinstance(value, Mapping):
        yield from _whole_numbers(list(value.values()))


def _schemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a prepared schema and all schemas in it."""
    yield schema
    for keyword, value in schema.items():
        if keyword in _NAMED:
            inner = list(value.values())
        elif keyword in _LISTS or keyword in _ONE:
            inner = value if isinstance(value, list) else [value]
        else:
            continue
        for item in inner:
            if isinstance(item, dict):
                yield from _schemas(item)


def _closable(schema: dict[str, Any]) -> bool:
    """Return whether no object is described in two places that must hold together: one that is
    closed could then refuse what the other asks for."""
    neutral = {"$schema", "$defs", "definitions", "$anchor"}
    for part in _schemas(schema):
        combining = part.keys() & _COMBINING
        if "allOf" in combining or (combining and part.keys() - combining - neutral):
            return False
        if len(combining) > 1:
            return False
    return True


def _open(part: dict[str, Any]) -> bool:
    properties: dict[str, Any] = part.get("properties", {})
    return (
        bool(properties)
        and not part.keys() & {"additionalProperties", "patternProperties", "const", "enum"}
        and set(part.get("required", ())) <= properties.keys()
        and part.get("minProperties", 0) <= len(part.get("required", ()))
    )
