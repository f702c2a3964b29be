"""The form of an answer, as callers ask for it, to the grammar that enforces it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_llm.api.tools import without_titles
from edge_llm.errors import RequestError
from edge_llm.runner.guidance.grammar import Grammar

# Options of a call that hold its answer to a form; one of them at a time.
FORMS = ("response_format", "json_schema", "regex", "choice", "grammar")


def grammar_of(options: Mapping[str, Any]) -> Grammar | None:
    """Return the grammar that `FORMS` among some options ask for, None if none does.

    - ``response_format``: a type (a pydantic model, a dataclass, …), whose JSON the answer is, or
      OpenAI's objects: ``{"type": "json_object"}``, ``{"type": "json_schema", "json_schema":
      {"schema": …}}``, ``{"type": "text"}``
    - ``json_schema``: a schema; ``regex``: a regular expression; ``choice``: a list of texts;
      ``grammar``: Lark or GBNF

    Raises:
        RequestError: more than one of them, or one that cannot be enforced.
    """
    given = {name: options[name] for name in FORMS if options.get(name) is not None}
    if len(given) > 1:
        first, second, *_ = given
        raise RequestError(f"{first} and {second} cannot both be given", param=second)
    for name, value in given.items():
        match name:
            case "response_format":
                return _of_response_format(value)
            case "json_schema":
                return Grammar.json_schema(value, param=name)
            case "regex":
                return Grammar.regex(value, param=name)
            case "choice":
                return Grammar.choice(value, param=name)
            case "grammar":
                return Grammar.lark_or_gbnf(value, param=name)
    return None


def form_given(options: Mapping[str, Any]) -> str:
    """Return the name of the form that `grammar_of` takes, for errors."""
    return next((name for name in FORMS if options.get(name) is not None), FORMS[0])


def _of_response_format(value: Any) -> Grammar | None:
    param = "response_format"
    if not isinstance(value, Mapping):
        return Grammar.json_schema(_schema_of(value), param=param)
    match value.get("type"):
        case "text":
            return None
        case "json_object":
            return Grammar.json_object()
        case "json_schema":
            inner = value.get("json_schema")
            if not isinstance(inner, Mapping) or "schema" not in inner:
                raise RequestError(
                    "response_format of type json_schema needs json_schema.schema", param=param
                )
            return Grammar.json_schema(inner["schema"], param=param)
        case other:
            raise RequestError(
                f"response_format is of type {other!r}, expected 'text', 'json_object' or "
                "'json_schema'",
                param=param,
            )


def _schema_of(kind: Any) -> dict[str, Any]:
    """Return the JSON schema of a type."""
    from pydantic import TypeAdapter  # paid for by those who use it

    try:
        return without_titles(TypeAdapter(kind).json_schema())
    except Exception as exc:  # whatever an annotation does to pydantic
        raise RequestError(
            f"response_format is {kind!r:.200}, which has no JSON schema: {exc}",
            param="response_format",
        ) from exc
