"""The fields that the routes accept. Types are strict: no strings for numbers, no NaN.

Fields that are not named here end up in ``model_extra``: `validation.py` ignores them by name, or
refuses those that would change the answer.

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
    PlainValidator,
    create_model,
)
from pydantic_core import PydanticCustomError

from edge_llm.runner.sampling import (
    MAX_CHOICES,
    MAX_TOP_LOGPROBS,
    NAMES,
    PARAMETERS,
    Parameter,
    canonical,
)

MAX_STOP = 4
MAX_STOP_LENGTH = 1024
MAX_BIASES = 4096
MAX_VARIABLES = 64


def _whole(value: Any) -> Any:
    """Return an integer for one that comes as 3.0, as some clients send it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(parameter: Parameter, value: Any) -> Any:
    value = _whole(value) if parameter.kind == "integer" else value
    return parameter.same.get(value, value) if type(value) in (int, float) else value


def _stop(value: Any) -> Any:
    value = [value] if isinstance(value, str) and value else value
    return value or None if isinstance(value, str | list) else value


def _bounded(value: Any) -> Any:
    if isinstance(value, dict) and len(value) > MAX_BIASES:
        raise PydanticCustomError("too_many_keys", f"at most {MAX_BIASES} entries")
    return value


def _variables(value: Any) -> Any:
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
    match parameter.kind:
        case "integer" | "number":
            kind = int if parameter.kind == "integer" else float
            kind = Annotated[
                kind, BeforeValidator(partial(_number, parameter)), Field(le=parameter.high, **low)
            ]
        case "boolean":
            kind = bool
        case "name":
            kind = Literal[parameter.choices]
        case "biases":
            bias = Annotated[float, Field(le=parameter.high, **low)]
            kind = Annotated[dict[str, bias], BeforeValidator(_bounded), AfterValidator(_token_ids)]
        case "strings":
            text = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
            kind = Annotated[list[text], Field(max_length=MAX_STOP)]
            return Annotated[
                kind | None, BeforeValidator(_stop), Field(description=parameter.meaning)
            ]
        case _:
            raise AssertionError(f"no HTTP form for {parameter.kind}")
    return Annotated[kind | None, about]


Integer = Annotated[int, BeforeValidator(_whole)]
Choices = Annotated[Integer, Field(ge=1, le=MAX_CHOICES)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    include_usage: bool | None = None


if TYPE_CHECKING:
    SamplingFields = BaseModel  # read by `Sampling.sampling`
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
    """The fields that both generating routes share: the sampling parameters, by all their names,
    and some more. None is "not given" everywhere; what is not given comes from the program's
    recommendations."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Choices | None = None

    def sampling(self) -> dict[str, Any]:
        """Return the sampling parameters that are given, as `SamplingParams` names them.

        Raises:
            RequestError: two names of one parameter.
        """
        values = {
            alias: getattr(self, alias) for alias, name in NAMES.items() if PARAMETERS[name].http
        }
        return canonical({alias: value for alias, value in values.items() if value is not None})


class TextPart(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["text"]
    text: str


def _parts(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


class ChatMessage(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        Annotated[list[TextPart], Field(fail_fast=True)] | None, BeforeValidator(_parts)
    ]
    name: str | None = None

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content or ())


class ChatRequest(Sampling):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    logprobs: bool | None = None
    top_logprobs: Annotated[Integer, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    chat_template_kwargs: Annotated[dict[str, Any], BeforeValidator(_variables)] | None = None


def _prompts(value: Any) -> list[str | list[int]]:
    """Return a list of prompts from one text, several, one list of token ids, or several."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise PydanticCustomError("prompt_type", "expected a string or an array")
    if not value:
        raise PydanticCustomError("too_short", "is empty")
    if all(isinstance(item, str) for item in value):
        return value
    prompts = value if isinstance(value[0], list) else [value]
    if all(isinstance(prompt, list) for prompt in prompts):
        prompts = [[_whole(token) for token in prompt] for prompt in prompts]
        if all(type(token) is int for prompt in prompts for token in prompt):
            return prompts
    raise PydanticCustomError(
        "prompt_type", "expected only strings, only token ids, or only arrays of token ids"
    )


class CompletionRequest(Sampling):
    """``POST /v1/completions``, the legacy route."""

    prompt: Annotated[list[str | list[int]], PlainValidator(_prompts)]
    echo: bool | None = None
    logprobs: Annotated[Integer, Field(ge=0, le=5)] | None = None
    best_of: Choices | None = None
