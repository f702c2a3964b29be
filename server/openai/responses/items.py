"""The items of a request to ``/v1/responses``: what a conversation consists of there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from edge_llm.server.requests.kinds import Kinds

# Kinds that the API knows and this server does not.
OTHER_PARTS = frozenset({"input_audio", "input_file", "input_image"})
OTHER_ITEMS = frozenset(
    {
        "additional_tools",
        "apply_patch_call",
        "apply_patch_call_output",
        "code_interpreter_call",
        "compaction",
        "compaction_trigger",
        "computer_call",
        "computer_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "file_search_call",
        "image_generation_call",
        "local_shell_call",
        "local_shell_call_output",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "program",
        "program_output",
        "shell_call",
        "shell_call_output",
        "tool_search_call",
        "tool_search_output",
        "web_search_call",
    }
)


class Open(BaseModel):
    """An object whose other keys are ignored by name."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class InputText(Open):
    type: Literal["input_text"]
    text: str


class OutputText(Open):
    type: Literal["output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class Refusal(Open):
    type: Literal["refusal"]
    refusal: str


class SummaryText(Open):
    type: Literal["summary_text"]
    text: str


class ReasoningText(Open):
    type: Literal["reasoning_text"]
    text: str


Part = Annotated[InputText | OutputText | Refusal, Kinds(OTHER_PARTS)]
Parts = Annotated[list[Part], Field(fail_fast=True)]


class Message(Open):
    """A message of any role; ``content`` is text or parts."""

    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[
        Parts, BeforeValidator(lambda value: value, json_schema_input_type=str | Parts)
    ]
    id: str | None = None
    status: str | None = None
    phase: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _parts(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("content"), str):
            kind = "output_text" if value.get("role") == "assistant" else "input_text"
            return {**value, "content": [{"type": kind, "text": value["content"]}]}
        return value


class FunctionCall(Open):
    """A call that an answer made. ``arguments`` is what the model wrote, JSON or not."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: str | None = None
    caller: Any = None


def _output(value: Any) -> Any:
    return [{"type": "input_text", "text": value}] if isinstance(value, str) else value


class FunctionCallOutput(Open):
    """The result of a call, text or parts."""

    type: Literal["function_call_output"]
    call_id: str
    output: Annotated[Parts, BeforeValidator(_output, json_schema_input_type=str | Parts)]
    id: str | None = None
    status: str | None = None
    name: str | None = None
    caller: Any = None


class Reasoning(Open):
    """A thinking block of an earlier answer, in whichever form the client kept it."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: list[Annotated[SummaryText, Kinds()]] | None = None
    content: list[Annotated[ReasoningText, Kinds()]] | None = None
    encrypted_content: str | None = None
    status: str | None = None


class ItemReference(Open):
    """An item of a stored response, by its id."""

    type: Literal["item_reference"] | None = None
    id: str


def _kind_without_type(value: Mapping[str, Any]) -> str | None:
    if "role" in value:
        return "message"
    return "item_reference" if "id" in value else None


InputItem = Annotated[
    Message | FunctionCall | FunctionCallOutput | Reasoning | ItemReference,
    Kinds(OTHER_ITEMS, _kind_without_type),
]
