"""The request of ``POST /v1/responses``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from edge_llm.runner.sampling import INT32_MAX, MAX_TOP_LOGPROBS
from edge_llm.server.openai.messages import MAX_PARTS
from edge_llm.server.openai.responses.items import InputItem, Open
from edge_llm.server.requests.kinds import Kinds
from edge_llm.server.requests.sampling import Generating, Integer, bounded_variables
from edge_llm.server.requests.tools import MAX_TOOLS
from edge_llm.server.requests.unsupported import UNSUPPORTED

# Tools that a provider runs itself, and forms of tools that the API knows and this server does not.
OTHER_TOOLS = frozenset(
    {
        "apply_patch",
        "code_interpreter",
        "computer",
        "computer_use_preview",
        "custom",
        "file_search",
        "image_generation",
        "local_shell",
        "mcp",
        "namespace",
        "programmatic_tool_calling",
        "shell",
        "tool_search",
        "web_search",
        "web_search_2025_08_26",
        "web_search_preview",
        "web_search_preview_2025_03_11",
    }
)
MAX_METADATA = 16
# Options of the API that would change the answer, and options of chats that have other names here,
# with the values that ask for nothing.
REFUSED: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        **UNSUPPORTED,
        "access_programs": (None,),
        "background_options": (None,),
        "context_management": (None, []),
        "conversation": (None,),
        "grammar": (None, ""),
        "image": (None,),
        "json_schema": (None,),
        "logprobs": (None, False),
        "messages": (None,),
        "moderation": (None,),
        "prompt": (None,),
        "reasoning_effort": (None,),
        "regex": (None, ""),
        "response_format": (None, {"type": "text"}),
    }
)

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]+$", max_length=128)]


class FunctionTool(Open):
    """A function that the model may call. ``strict`` changes nothing: the schema always holds."""

    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


Tool = Annotated[FunctionTool, Kinds(OTHER_TOOLS)]


class NamedFunction(Open):
    """The choice of one function, by its name."""

    type: Literal["function"]
    name: str


class AllowedTools(Open):
    """The choice of some of the tools."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[Annotated[NamedFunction, Kinds(OTHER_TOOLS)]], Field(min_length=1)]


class PlainText(Open):
    type: Literal["text"]


class JsonObject(Open):
    type: Literal["json_object"]


class JsonSchema(Open):
    """Text that fits a JSON schema. ``strict`` changes nothing: the schema always holds."""

    type: Literal["json_schema"]
    name: Name
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class TextOptions(Open):
    """The form of the text. ``verbosity`` is taken and changes nothing."""

    format: Annotated[PlainText | JsonObject | JsonSchema, Kinds()] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningOptions(Open):
    """The way to think. With a ``summary``, what was thought comes as the summary, in full."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


def _items(value: Any) -> Any:
    if isinstance(value, list):
        items = (item for item in value if isinstance(item, dict))
        lists = (item.get(name) for item in items for name in ("content", "output", "summary"))
        if len(value) + sum(len(parts) for parts in lists if isinstance(parts, list)) > MAX_PARTS:
            raise PydanticCustomError("too_long", "too many", {"max_length": MAX_PARTS})
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


_Key = Annotated[str, Field(max_length=64)]
_Value = Annotated[str, Field(max_length=512)]
# Whether more comes beside the answer.
ENCRYPTED_REASONING = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"


class ResponsesRequest(Generating):
    """``POST /v1/responses``."""

    input: Annotated[
        Annotated[list[InputItem], Field(min_length=1, fail_fast=True)],
        BeforeValidator(_items, json_schema_input_type=str | list[InputItem]),
    ]
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: (
        Annotated[
            Literal["auto", "none", "required"] | NamedFunction | AllowedTools, Kinds(OTHER_TOOLS)
        ]
        | None
    ) = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    max_output_tokens: Annotated[Integer, Field(ge=1, le=INT32_MAX)] | None = None
    top_logprobs: Annotated[Integer, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    include: list[str] | None = None
    truncation: str | None = None
    metadata: Annotated[dict[_Key, _Value], Field(max_length=MAX_METADATA)] | None = None
    background: bool | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    chat_template_kwargs: Annotated[dict[str, Any], BeforeValidator(bounded_variables)] | None = (
        None
    )
    thinking_budget: Annotated[Integer, Field(ge=0, le=INT32_MAX)] | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
