"""The replies of the Anthropic routes, for the OpenAPI document; `blocks.py` writes them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from edge_llm.server.replies import LeftOut

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class OutputTokensDetails(BaseModel):
    thinking_tokens: int


class MessageUsage(BaseModel):
    """The tokens of a prompt and its answer; those that the cache had are apart."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: OutputTokensDetails


class TextReply(BaseModel):
    """Text."""

    type: Literal["text"]
    text: str


class ThinkingReply(BaseModel):
    """The reasoning before an answer, with a digest of it as its signature."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class ToolUseReply(BaseModel):
    """A call of a tool. Arguments that are no JSON object are under the key ``INVALID_JSON``."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class MessageReply(BaseModel):
    """A whole reply of ``/v1/messages``."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextReply | ThinkingReply | ToolUseReply]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage
    context_policy: LeftOut | None = None


class Delta(BaseModel):
    """A part of a block (``type``, and ``text``, ``thinking``, ``signature`` or
    ``partial_json``), or why the message ended."""

    type: Literal["text_delta", "thinking_delta", "signature_delta", "input_json_delta"] | None = (
        None
    )
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None


class MessageEvent(BaseModel):
    """An event of a streamed reply. ``message_start`` and ``ping`` come first; each block has a
    start, deltas and a stop; ``message_delta`` and ``message_stop`` end it. Keys without a value
    are left out."""

    type: Literal[
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    message: MessageReply | None = None
    index: int | None = None
    content_block: TextReply | ThinkingReply | ToolUseReply | None = None
    delta: Delta | None = None
    usage: MessageUsage | None = None
    context_policy: LeftOut | None = None


class TokenCount(BaseModel):
    """The tokens of a prompt."""

    input_tokens: int
