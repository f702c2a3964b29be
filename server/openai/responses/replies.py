"""The replies of ``/v1/responses``, for the OpenAPI document; `shape.py` writes them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from edge_llm.server.openai.replies import Timings
from edge_llm.server.replies import LeftOut


class InputTokensDetails(BaseModel):
    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(BaseModel):
    reasoning_tokens: int


class ResponseUsage(BaseModel):
    """The tokens of the conversation and of the answer."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseItem(BaseModel):
    """A message, a thinking block, a call, or the output of one, as ``type`` says."""

    model_config = ConfigDict(extra="allow")

    id: str
    type: Literal["message", "reasoning", "function_call", "function_call_output"]
    status: str | None = None


class IncompleteDetails(BaseModel):
    """The reason why an answer is cut."""

    reason: Literal["max_output_tokens"]


class ResponseFailure(BaseModel):
    """The reason why there is no answer."""

    code: Literal["server_error", "rate_limit_exceeded"]
    message: str


class ResponseObject(BaseModel):
    """An answer: its items, and what the request asked for."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[ResponseItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: dict[str, str | None]
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None
    timings: Timings | None = None
    context_policy: LeftOut | None = None


class ResponseEvent(BaseModel):
    """One event of a stream. What else it has, its ``type`` says."""

    model_config = ConfigDict(extra="allow")

    type: str
    sequence_number: int


class DeletedResponse(BaseModel):
    """A response that is no more."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class ItemList(BaseModel):
    """A page of items."""

    object: Literal["list"]
    data: list[ResponseItem]
    first_id: str | None
    last_id: str | None
    has_more: bool
