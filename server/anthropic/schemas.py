"""The requests of the Anthropic routes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from edge_llm.runner.sampling import INT32_MAX
from edge_llm.server.requests.kinds import Kinds
from edge_llm.server.requests.sampling import MAX_TEXT, Integer
from edge_llm.server.requests.values import JsonObject, Part, refused

MAX_STOP_SEQUENCES = 64
# Types of blocks that the provider has and we have not.
_OTHERS = frozenset(
    {
        "bash_code_execution_tool_result",
        "browser_state",
        "code_execution_tool_result",
        "compaction",
        "container_upload",
        "document",
        "image",
        "mcp_tool_result",
        "mcp_tool_use",
        "redacted_thinking",
        "search_result",
        "server_tool_use",
        "text_editor_code_execution_tool_result",
        "tool_reference",
        "tool_search_tool_result",
        "web_fetch_tool_result",
        "web_search_tool_result",
    }
)


class Marked(Part):
    """A part that can carry a mark for the provider's cache, which ours does without."""

    cache_control: Annotated[Any, Field(description="accepted; prompts are cached anyway")] = None


class TextBlock(Marked):
    """Text."""

    type: Literal["text"]
    text: str
    citations: Any = None


class ThinkingBlock(Marked):
    """The reasoning before an answer. The signature is not checked."""

    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class ToolUseBlock(Marked):
    """A call that the assistant has made."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: JsonObject
    caller: Any = None


def _blocks(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


ResultBlocks = Annotated[list[Annotated[TextBlock, Kinds(_OTHERS)]], Field(fail_fast=True)]


class ToolResultBlock(Marked):
    """What a call gave: a text or text blocks."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: Annotated[
        ResultBlocks | None,
        BeforeValidator(_blocks, json_schema_input_type=str | ResultBlocks | None),
    ] = None
    is_error: bool | None = None


Block = Annotated[TextBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock, Kinds(_OTHERS)]
Blocks = Annotated[list[Block], Field(fail_fast=True)]


class Message(Part):
    """A turn: a text or blocks."""

    role: Literal["user", "assistant", "system"]
    content: Annotated[Blocks, BeforeValidator(_blocks, json_schema_input_type=str | Blocks)]


class ToolParam(Marked):
    """A tool that may be called. Its ``type`` is "custom" or left out."""

    type: str | None = None
    name: Annotated[str, Field(min_length=1, max_length=128)]
    description: str | None = None
    input_schema: JsonObject | None = None
    strict: Annotated[bool | None, Field(description="accepted; schemas are always enforced")] = (
        None
    )
    eager_input_streaming: Any = None
    allowed_callers: Annotated[Any, refused(["direct"])] = None
    defer_loading: Annotated[Any, refused(False)] = None


class ToolChoiceParam(Part):
    """Whether tools are called: as the model likes, at least one, one by name, none."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingParam(Part):
    """Whether to think before the answer. "adaptive" leaves it to the model."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[Integer, Field(ge=1, le=INT32_MAX)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(Part):
    """A JSON schema that the answer's text is held to."""

    type: Literal["json_schema"]
    schema_: Annotated[JsonObject, Field(alias="schema")]


class OutputConfig(Part):
    """How the answer is to be."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


TextBlocks = Annotated[list[TextBlock], Field(fail_fast=True)]


class CountRequest(Part):
    """``POST /v1/messages/count_tokens``."""

    model: str | None = None  # the served one
    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)]
    system: Annotated[
        TextBlocks | None, BeforeValidator(_blocks, json_schema_input_type=str | TextBlocks | None)
    ] = None
    tools: Annotated[list[ToolParam], Field(fail_fast=True)] | None = None
    tool_choice: ToolChoiceParam | None = None
    thinking: ThinkingParam | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    cache_control: Any = None
    # Of the provider's books and machines.
    diagnostics: Any = None
    inference_geo: Any = None
    speed: Any = None
    user_profile_id: Any = None
    # Parts of the provider's own machinery.
    compaction: Annotated[Any, refused()] = None
    container: Annotated[Any, refused()] = None
    context_management: Annotated[Any, refused({}, {"edits": []})] = None
    fallbacks: Annotated[Any, refused([])] = None
    mcp_servers: Annotated[Any, refused([])] = None
    thread: Annotated[Any, Field(description="not supported: send the whole conversation")] = None


class MessagesRequest(CountRequest):
    """``POST /v1/messages``."""

    max_tokens: Annotated[Integer, Field(ge=1, le=INT32_MAX)]
    stream: bool | None = None
    stop_sequences: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]],
            Field(max_length=MAX_STOP_SEQUENCES),
        ]
        | None
    ) = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[Integer, Field(ge=0, le=INT32_MAX)] | None = None
