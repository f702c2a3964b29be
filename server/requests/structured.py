"""The form of an answer, by all the names that clients have for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from edge_llm.errors import RequestError
from edge_llm.runner.generation.loop import Job
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.server.errors import ApiError, invalid
from edge_llm.server.models.model import Model
from edge_llm.server.requests.kinds import Kinds

MAX_CHOICES = 10_000


def _text(value: Any) -> Any:
    return None if value == "" else value


def _texts(value: Any) -> Any:
    return None if value == [] else value


def _parsed(value: Any) -> Any:
    """Return a schema that may come as the text of one."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value else None
    except (ValueError, RecursionError):
        return value  # which is no object


Schema = Annotated[dict[str, Any], Field(description="a JSON schema")]
Text = Annotated[str | None, BeforeValidator(_text)]
Texts = Annotated[
    Annotated[list[str], Field(max_length=MAX_CHOICES, fail_fast=True)] | None,
    BeforeValidator(_texts),
]
SchemaOrText = Annotated[
    dict[str, Any] | None,
    BeforeValidator(_parsed, json_schema_input_type=dict[str, Any] | str | None),
]


class JsonSchema(BaseModel):
    """A JSON schema with a name."""

    model_config = ConfigDict(strict=True, extra="allow")

    name: str | None = None
    description: str | None = None
    strict: Annotated[
        bool | None, Field(description="answers are held to the schema in any case")
    ] = None
    schema_: Annotated[Schema, Field(alias="schema")]


class TextFormat(BaseModel):
    """Free text."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["text"]


class ObjectFormat(BaseModel):
    """A JSON object, as an extension one that a JSON schema allows."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["json_object"]
    schema_: Annotated[Schema | None, Field(alias="schema")] = None


class SchemaFormat(BaseModel):
    """What a JSON schema allows."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[
    TextFormat | ObjectFormat | SchemaFormat, Kinds(("grammar", "python", "structural_tag"))
]


class StructuredOutputs(BaseModel):
    """The form of an answer; one of these."""

    model_config = ConfigDict(strict=True, extra="allow")

    json_: Annotated[SchemaOrText, Field(alias="json")] = None
    regex: Text = None
    choice: Texts = None
    grammar: Text = None
    json_object: bool | None = None


class StructuredFields(BaseModel):
    """The fields that hold an answer to a form. At most one is given."""

    response_format: ResponseFormat | None = None
    json_schema: SchemaOrText = None
    regex: Text = None
    choice: Texts = None
    grammar: Annotated[Text, Field(description="in Lark or GBNF")] = None
    guided_json: SchemaOrText = None
    guided_regex: Text = None
    guided_choice: Texts = None
    guided_grammar: Text = None
    structured_outputs: StructuredOutputs | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """A form that was asked for in the field ``param``."""

    grammar: Grammar
    param: str


def form_of(request: StructuredFields) -> Form | None:
    """Return the form that a request asks for, None for free text.

    Raises:
        ApiError: several are asked for, or one that can never be enforced.
    """
    asked = _asked(request)
    if len(asked) > 1:
        first, second = list(asked)[:2]
        raise invalid(f"'{second}' cannot be given together with '{first}'.", second)
    for param, (make, value) in asked.items():
        try:
            return Form(make(value, param), param)
        except RequestError as exc:
            raise refused_form(exc, param) from exc
    return None


def guided(model: Model, jobs: Sequence[Job], form: Form) -> list[Job]:
    """Return jobs whose answers have a form.

    Raises:
        ApiError: the model cannot be held to it.
    """
    try:
        return model.guided(jobs, form.grammar, form.param)
    except RequestError as exc:
        raise refused_form(exc, form.param) from exc


def refused_form(error: RequestError, param: str) -> ApiError:
    """Return the error for a form that cannot be enforced."""
    return invalid(f"Invalid '{param}': {error}.", param, "unsupported_value")


Maker = Callable[[Any, str], Grammar]


def _asked(request: StructuredFields) -> dict[str, tuple[Maker, Any]]:
    """Return what each field asks for, by its path."""
    asked: dict[str, tuple[Maker, Any]] = {}
    match request.response_format:
        case ObjectFormat(schema_=None):
            asked["response_format"] = (_object, None)
        case ObjectFormat(schema_=schema) | SchemaFormat(json_schema=JsonSchema(schema_=schema)):
            asked["response_format"] = (_MAKERS["json"], schema)
    for name, kind in _FIELDS.items():
        if (value := getattr(request, name)) is not None:
            asked[name] = (_MAKERS[kind], value)
    if (outputs := request.structured_outputs) is not None:
        for name in ("json_", "regex", "choice", "grammar"):
            if (value := getattr(outputs, name)) is not None:
                key = name.rstrip("_")
                asked[f"structured_outputs.{key}"] = (_MAKERS[key], value)
        if outputs.json_object:
            asked["structured_outputs.json_object"] = (_object, None)
    return asked


def _object(value: Any, param: str) -> Grammar:
    return Grammar.json_object()


_MAKERS: Mapping[str, Maker] = MappingProxyType(
    {
        "json": lambda schema, param: Grammar.json_schema(schema, param=param),
        "regex": lambda pattern, param: Grammar.regex(pattern, param=param),
        "choice": lambda texts, param: Grammar.choice(texts, param=param),
        "grammar": lambda text, param: Grammar.lark_or_gbnf(text, param=param),
    }
)
_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "json_schema": "json",
        "regex": "regex",
        "choice": "choice",
        "grammar": "grammar",
        "guided_json": "json",
        "guided_regex": "regex",
        "guided_choice": "choice",
        "guided_grammar": "grammar",
    }
)
