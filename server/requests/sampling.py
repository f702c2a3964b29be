"""The fields that requests share. Types are strict: no strings for numbers, no NaN.

Fields that no request model names end up in ``model_extra``: `validation.py` ignores them by name,
or refuses those that would change the answer (`unsupported.py`).

Every wrong entry of a list becomes an error object before the first is looked at, so that a body of
some megabytes would cost gigabytes: long lists stop at the first (`fail_fast`), the dictionary is
bounded.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    create_model,
)
from pydantic_core import PydanticCustomError

from edge_llm.runner.sampling import (
    MAX_CHOICES,
    NAMES,
    PARAMETERS,
    Parameter,
    canonical,
)

MAX_TEXT = 1024  # characters of a stop string, and of others like it
MAX_BIASES = 4096
MAX_VARIABLES = 64


def whole(value: Any) -> Any:
    """Return an integer for one that comes as 3.0, as some clients send it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(parameter: Parameter, value: Any) -> Any:
    value = whole(value) if parameter.kind == "integer" else value
    return parameter.same.get(value, value) if type(value) in (int, float) else value


def _strings(value: Any) -> Any:
    """Return a list for one string; the empty one is "not given"."""
    return ([value] if value else None) if isinstance(value, str) else value


def _biases(value: Any) -> Any:
    """Return an object for a list of pairs, which some clients send."""
    if isinstance(value, dict | list) and len(value) > MAX_BIASES:
        raise PydanticCustomError("too_many_keys", f"at most {MAX_BIASES} entries")
    if not isinstance(value, list):
        return value
    pairs = [
        (whole(pair[0]), pair[1])
        for pair in value
        if isinstance(pair, list | tuple) and len(pair) == 2
    ]
    if len(pairs) != len(value) or any(type(token) is not int for token, _ in pairs):
        raise PydanticCustomError("wrong_kind", "expected an object, or pairs of an id and a bias")
    return {str(token): bias for token, bias in pairs}


def bounded_variables(value: Any) -> Any:
    if isinstance(value, dict):
        if len(value) > MAX_VARIABLES:
            raise PydanticCustomError("too_many_keys", f"at most {MAX_VARIABLES} entries")
        taken = sorted({"add_generation_prompt", "messages", "tools"} & value.keys())
        if taken:
            raise PydanticCustomError(
                "invalid_key", f"keys other than '{taken[0]}', which the request itself sets"
            )
    return value


def _token_ids(value: dict[str, float]) -> dict[int, float]:
    # int() would take "+1", " 1" and other digits than ASCII ones
    if not all(key.isascii() and key.isdecimal() and len(key) < 11 for key in value):
        raise PydanticCustomError("invalid_key", "keys that are token ids")
    return {int(key): bias for key, bias in value.items()}


def _field(parameter: Parameter) -> Any:
    """Return the type of a sampling parameter in a request; None is "not given"."""
    low: dict[str, Any] = {"gt" if parameter.above else "ge": parameter.low}
    about = Field(description=parameter.meaning)
    kind: Any
    read: Any
    match parameter.kind:
        case "integer" | "number":
            kind = int if parameter.kind == "integer" else float
            range_ = Field(le=parameter.high, **low)
            shown: Any = Annotated[kind, range_]
            if parameter.same:
                shown = shown | Literal[tuple(parameter.same)]
            read = BeforeValidator(partial(_number, parameter), json_schema_input_type=shown)
            kind = Annotated[kind, read, range_]
        case "boolean":
            kind = bool
        case "name":
            kind = Literal[parameter.choices]
        case "biases":
            bias = Annotated[float, Field(le=parameter.high, **low)]
            pairs = list[tuple[int, bias]]
            read = BeforeValidator(_biases, json_schema_input_type=dict[str, bias] | pairs)
            kind = Annotated[dict[str, bias], read, AfterValidator(_token_ids)]
        case "strings":
            text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
            kind = Annotated[list[text], Field(max_length=parameter.most)]
            read = BeforeValidator(_strings, json_schema_input_type=kind | str | None)
            return Annotated[kind | None, read, about]
        case "ids":
            token = Annotated[int, BeforeValidator(whole), Field(le=parameter.high, **low)]
            kind = Annotated[list[token], Field(max_length=parameter.most, fail_fast=True)]
        case _:
            raise AssertionError(f"no HTTP form for {parameter.kind}")
    return Annotated[kind | None, about]


Integer = Annotated[int, BeforeValidator(whole, json_schema_input_type=int)]
Choices = Annotated[Integer, Field(ge=1, le=MAX_CHOICES)]


class StreamOptions(BaseModel):
    """What a stream has beside its text."""

    model_config = ConfigDict(strict=True, extra="allow")

    include_usage: bool | None = None


if TYPE_CHECKING:
    SamplingFields = BaseModel  # read by `Generating.sampling`
else:
    SamplingFields = create_model(
        "SamplingFields",
        **{
            alias: (_field(PARAMETERS[name]), None)
            for alias, name in NAMES.items()
            if PARAMETERS[name].http
        },
    )


class Sampling(SamplingFields):
    """The sampling parameters, by all their names. None is "not given" everywhere; what is not
    given comes from the program's recommendations."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    def sampling(self) -> dict[str, Any]:
        """Return the sampling parameters that are given, as `SamplingParams` names them.

        Raises:
            RequestError: two names of one parameter.
        """
        values = {
            alias: getattr(self, alias) for alias, name in NAMES.items() if PARAMETERS[name].http
        }
        return canonical({alias: value for alias, value in values.items() if value is not None})


class Generating(Sampling):
    """The fields that the older OpenAI routes share: the sampling parameters and some more."""

    model: str | None = None  # the served one
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Choices | None = None
    best_of: Annotated[Choices | None, Field(description="what `n` is")] = None
