"""The replies of the OpenAI routes, for the OpenAPI document; the writers of each route write
them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from edge_llm.server.models.offer import State
from edge_llm.server.replies import LeftOut

FinishReason = Literal["stop", "length", "tool_calls"]
ChatFinishReason = Literal["stop", "length", "tool_calls", "function_call"]


class Capabilities(BaseModel):
    """The abilities of a model: ``thinking_switch``, that thinking can be turned off; ``efforts``,
    the values of ``reasoning_effort`` that its chat template knows."""

    chat: bool
    tools: bool
    thinking: bool
    thinking_switch: bool
    efforts: list[str]
    embedding: bool


class ModelObject(BaseModel):
    """A served model, loaded or not (``state``); ``parent`` is the model that an adapter is beside,
    null of a model itself; ``recommended`` are the sampling parameters of its
    authors, which hold where a request says nothing."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    parent: str | None
    state: State
    context_length: int
    capabilities: Capabilities
    recommended: dict[str, Any]


class ModelList(BaseModel):
    """The served models."""

    object: Literal["list"]
    data: list[ModelObject]


class PromptTokensDetails(BaseModel):
    cached_tokens: int


class CompletionTokensDetails(BaseModel):
    reasoning_tokens: int


class Usage(BaseModel):
    """The tokens of prompts and answers."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class Timings(BaseModel):
    """What the time went to: milliseconds, tokens per second, GB/s (1e9)."""

    prompt_tokens: int
    cached_tokens: int
    cache: Annotated[str, Field(description="what the cache had of the prompt, or why no more")]
    completion_tokens: int
    queue_ms: float
    prompt_ms: float
    time_to_first_token_ms: float
    decode_ms: float
    prompt_tokens_per_second: float
    decode_tokens_per_second: float
    decode_gb_per_second: float
    drafted_tokens: int
    accepted_tokens: int
    max_tokens_clipped: Annotated[
        int | None, Field(description="what fits, where more was asked for; else left out")
    ] = None


class FunctionCall(BaseModel):
    """A call: the function's name, and its arguments as JSON text."""

    name: str
    arguments: str


class ToolCallReply(BaseModel):
    """A call of a tool."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class AnswerMessage(BaseModel):
    """An answer. Keys without a value are left out, but for ``content`` and ``refusal``."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallReply] | None = None
    function_call: FunctionCall | None = None


class TopLogprob(BaseModel):
    """A token that could have come."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token of the content, and the likeliest ones at its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """The log-probabilities of the content's tokens."""

    content: list[TokenLogprob]
    refusal: None


class ChatChoice(BaseModel):
    """One of the answers."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinishReason


class ChatCompletion(BaseModel):
    """A whole reply of ``/v1/chat/completions``."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    timings: Timings
    context_policy: LeftOut | None = None


class FunctionDelta(BaseModel):
    """A part of a call: its name comes first and alone, then the JSON text of its arguments."""

    name: str | None = None
    arguments: str


class ToolCallPart(BaseModel):
    """A part of the call ``index``; ``id`` and ``type`` are in its first one."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class AnswerDelta(BaseModel):
    """What an answer has grown by; keys without a value are left out."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallPart] | None = None
    function_call: FunctionDelta | None = None


class ChatChunkChoice(BaseModel):
    """A part of one of the answers."""

    index: int
    delta: AnswerDelta
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinishReason | None


class ChatCompletionChunk(BaseModel):
    """An event of a streamed reply; after the last comes ``data: [DONE]``. ``usage`` is there if
    asked for, and null but in the last event."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
    timings: Timings | None = None
    context_policy: LeftOut | None = None


class CompletionLogprobs(BaseModel):
    """The log-probabilities of a text's tokens; null for what follows nothing."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One of the texts, or a part of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None


class Completion(BaseModel):
    """A whole reply of ``/v1/completions``."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage
    timings: Timings
    context_policy: LeftOut | None = None


class CompletionChunk(BaseModel):
    """An event of a streamed reply; after the last comes ``data: [DONE]``. ``usage`` is there if
    asked for, and null but in the last event."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
    timings: Timings | None = None
    context_policy: LeftOut | None = None


class Embedding(BaseModel):
    """The vector of one text: numbers, or the base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class InputUsage(BaseModel):
    """The tokens of a request without an answer."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    """The reply of ``/v1/embeddings``."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: InputUsage


class RankedText(BaseModel):
    """A document, as it was given."""

    text: str


class RankedDocument(BaseModel):
    """How relevant the document ``index`` of the request is; ``document`` is there if asked for."""

    index: int
    relevance_score: float
    document: RankedText | None = None


class Rerank(BaseModel):
    """The reply of ``/v1/rerank``; the most relevant document comes first."""

    id: str
    model: str
    results: list[RankedDocument]
    usage: InputUsage
