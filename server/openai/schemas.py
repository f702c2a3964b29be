"""The requests of the OpenAI routes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticCustomError

from edge_llm.runner.sampling import MAX_TOP_LOGPROBS
from edge_llm.server.requests.sampling import (
    Choices,
    Generating,
    Integer,
    bounded_variables,
    whole,
)


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


class ChatRequest(Generating):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    logprobs: bool | None = None
    top_logprobs: Annotated[Integer, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    chat_template_kwargs: Annotated[dict[str, Any], BeforeValidator(bounded_variables)] | None = (
        None
    )


def prompts(value: Any) -> list[str | list[int]]:
    """Return a list of prompts from a text, token ids, or a list of either, also of both."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise PydanticCustomError("prompt_type", "expected a string or an array")
    if not value:
        raise PydanticCustomError("too_short", "is empty")
    prompts = value if isinstance(value[0], str | list) else [value]
    return [_prompt(prompt) for prompt in prompts]


def _prompt(value: Any) -> str | list[int]:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        ids = [whole(token) for token in value]
        if all(type(token) is int for token in ids):
            return ids
    raise PydanticCustomError(
        "prompt_type", "expected a string, token ids, or an array of strings and of token ids"
    )


class CompletionRequest(Generating):
    """``POST /v1/completions``, the legacy route."""

    prompt: Annotated[list[str | list[int]], PlainValidator(prompts)]
    echo: bool | None = None
    logprobs: Annotated[Integer, Field(ge=0, le=5)] | None = None
    best_of: Choices | None = None
