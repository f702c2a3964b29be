"""Unions of objects whose ``type`` says which kind they are.

``Annotated[A | B, Kinds()]`` is such a union; with a ``Literal`` of texts in it, those texts too.
Kinds that an API knows and that are not supported here are refused by name, and an error inside an
object has its path without the kind's name in it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


@dataclass(frozen=True, slots=True)
class Kinds:
    """The annotation of a union of models that have a field ``type``.

    Attributes:
        others: kinds that are refused by name.
        default: tells the kind of an object without ``type``, None if it cannot; without it, the
            type is required.
    """

    others: Collection[str] = ()
    default: Callable[[Mapping[str, Any]], str | None] | None = None

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        members = (source,) if isinstance(source, type) else get_args(source)
        models = {_kind_of(member): member for member in members if isinstance(member, type)}
        texts = [
            text for member in members if get_origin(member) is Literal for text in get_args(member)
        ]
        choices = {_tag(kind): handler.generate_schema(model) for kind, model in models.items()}
        if texts:
            choices[_TEXT] = core_schema.literal_schema(texts)
        union = core_schema.tagged_union_schema(
            choices,
            discriminator=self._tag_of,
        )

        def check(value: Any) -> Any:
            if not (texts and isinstance(value, str)):
                self._check(value, models)
            return value

        return core_schema.no_info_before_validator_function(check, union)

    def _tag_of(self, value: Any) -> str:
        if isinstance(value, str):
            return _TEXT
        if isinstance(value, BaseModel):  # when it is written
            return _tag(_kind_of(type(value)))
        return _tag(self._kind(value))

    def _kind(self, value: Any) -> Any:
        kind = value.get("type")
        return self.default(value) if kind is None and self.default is not None else kind

    def _check(self, value: Any, known: Collection[str]) -> None:
        if not isinstance(value, dict):
            raise PydanticCustomError("model_type", "expected an object")
        kind = self._kind(value)
        if kind is None:
            raise PydanticCustomError("kind_missing", "a type is missing")
        if not isinstance(kind, str):
            raise PydanticCustomError("kind_type", "expected a string")
        if kind not in known:
            # What a request says is repeated where it is a name that we know.
            named = f"'{kind}' is not supported here; " if kind in self.others else ""
            expected = ", ".join(f"'{name}'" for name in sorted(known))
            raise PydanticCustomError(
                "kind_unsupported", "{problem}", {"problem": f"{named}supported: {expected}"}
            )


def _kind_of(model: type[BaseModel]) -> str:
    """Return the text that the field ``type`` of a model must be."""
    for choice in get_args(model.model_fields["type"].annotation):
        if isinstance(choice, str):
            return choice
        for text in get_args(choice):  # of an optional one
            return str(text)
    raise AssertionError(f"{model.__name__}.type is not a Literal")


_TEXT = "<text>"


def _tag(kind: Any) -> str:
    # In the place of an error this is a part of the path: `validation.py` leaves out what is
    # between angle brackets.
    return f"<{kind}>"
