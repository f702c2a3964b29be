"""The requests of the OpenAI routes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError

from edge_llm.runner.sampling import INT32_MAX, MAX_TOP_LOGPROBS
from edge_llm.server.openai.messages import Messages
from edge_llm.server.requests.sampling import (
    Generating,
    Integer,
    bounded_variables,
    whole,
)
from edge_llm.server.requests.structured import StructuredFields
from edge_llm.server.requests.tools import Choice, FunctionChoice, Functions, Tools

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


class ChatRequest(Generating, StructuredFields):
    """``POST /v1/chat/completions``."""

    messages: Messages
    logprobs: bool | None = None
    top_logprobs: Annotated[Integer, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    tools: Tools | None = None
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[Functions | None, Field(json_schema_extra={"deprecated": True})] = None
    function_call: Annotated[
        FunctionChoice | None, Field(json_schema_extra={"deprecated": True})
    ] = None
    reasoning_effort: Annotated[Effort | None, Field(description="how much to think")] = None
    enable_thinking: Annotated[bool | None, Field(description="whether to think")] = None
    thinking_budget: Annotated[
        Annotated[Integer, Field(ge=0, le=INT32_MAX)] | None,
        Field(description="the most tokens of a thinking block; then it is closed"),
    ] = None
    chat_template_kwargs: Annotated[
        Annotated[dict[str, Any], BeforeValidator(bounded_variables)] | None,
        Field(description="variables of the chat template"),
    ] = None
    continue_final_message: Annotated[
        bool | None, Field(description="go on with the last message, of the assistant")
    ] = None
    add_generation_prompt: Annotated[
        bool | None, Field(description="false goes on with a last message of the assistant too")
    ] = None


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


Prompts = Annotated[
    list[str | list[int]],
    PlainValidator(prompts, json_schema_input_type=str | list[int] | list[str | list[int]]),
]


class CompletionRequest(Generating, StructuredFields):
    """``POST /v1/completions``, the legacy route."""

    prompt: Prompts
    echo: bool | None = None
    logprobs: Annotated[Integer, Field(ge=0, le=5)] | None = None
