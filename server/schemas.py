"""What the routes accept, field by field. Types are strict: no strings for numbers, no NaN.

Fields that are not named here end up in ``model_extra``: `validation.py` ignores them by name, or
refuses those that would change the answer.

Every wrong entry of a list becomes an error object before the first is looked at, so that a body of
some megabytes would cost gigabytes: long lists stop at the first (`fail_fast`), the dictionary is
bounded.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
)
from pydantic_core import PydanticCustomError

MAX_CHOICES = 128
MAX_STOP = 4
MAX_BIASES = 4096
MAX_VARIABLES = 64
INT32_MAX = 2**31 - 1

Bias = Annotated[float, Field(ge=-100, le=100)]


def _stop(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


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


def _token_ids(value: dict[str, float]) -> dict[str, float]:
    # int() would take "+1", " 1" and other digits than ASCII ones
    if not all(key.isascii() and key.isdecimal() and len(key) < 11 for key in value):
        raise PydanticCustomError("invalid_key", "keys that are token ids")
    return value


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    include_usage: bool | None = None


class Sampling(BaseModel):
    """The fields that both generating routes share. None is "not given" everywhere; what is not
    given comes from the program's recommendations. top_k, min_p, repetition_penalty and ignore_eos
    are extensions."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=INT32_MAX)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=1024)]],
            Field(max_length=MAX_STOP),
            BeforeValidator(_stop),
        ]
        | None
    ) = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: (
        Annotated[dict[str, Bias], BeforeValidator(_bounded), AfterValidator(_token_ids)] | None
    ) = None
    top_k: Annotated[int, Field(ge=0, le=INT32_MAX)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    ignore_eos: bool | None = None


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
    max_completion_tokens: Annotated[int, Field(ge=1, le=INT32_MAX)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    chat_template_kwargs: Annotated[dict[str, Any], BeforeValidator(_variables)] | None = None


def _prompts(value: Any) -> list[str | list[int]]:
    """One text, several, one list of token ids, or several: a list of prompts in any case."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise PydanticCustomError("prompt_type", "expected a string or an array")
    if not value:
        raise PydanticCustomError("too_short", "is empty")
    if all(type(item) is int for item in value):
        return [value]
    if all(isinstance(item, str) for item in value):
        return value
    if all(isinstance(item, list) and all(type(token) is int for token in item) for item in value):
        return value
    raise PydanticCustomError(
        "prompt_type", "expected only strings, only token ids, or only arrays of token ids"
    )


class CompletionRequest(Sampling):
    """``POST /v1/completions``, the legacy route."""

    prompt: Annotated[list[str | list[int]], PlainValidator(_prompts)]
    max_tokens: Annotated[int, Field(ge=0, le=INT32_MAX)] | None = None  # 0: with echo
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
