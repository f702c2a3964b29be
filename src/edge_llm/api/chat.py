"""A chat that waits for an answer, in the form that every dialect turns its requests into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from edge_llm.parsed import Tool

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NamedTool:
    """The choice of one tool, by its name."""

    name: str


ToolChoice = Literal["auto", "none", "required"] | NamedTool


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingOptions:
    """How to think; None leaves it to the template.

    Attributes:
        enabled: whether to think at all.
        effort: how much, by a name that the template knows ("low", "medium", "high").
        budget: at most so many tokens; then the block is closed.
    """

    enabled: bool | None = None
    effort: str | None = None
    budget: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCall:
    """A chat, and what its answer is to be.

    Attributes:
        messages: JSON objects with ``role`` and ``content`` (a text or None), and where they apply
            ``name``, ``reasoning_content``, ``tool_calls`` (``id`` and ``function`` with ``name``
            and ``arguments``) and ``tool_call_id``.
        tools: what may be called.
        tool_choice: "auto" (the model decides), "none", "required" (at least one), or one by name.
        parallel_tool_calls: several calls may come at once.
        grammar: holds the content to a form (a `Grammar`); with ``tools``, where none is called.
        thinking: how to think.
        continue_final_message: the answer goes on with the last message, which the assistant has
            begun.
        add_generation_prompt: False continues a last message of the assistant too.
        template_variables: further variables of the chat template.
    """

    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    grammar: Any = None
    thinking: ThinkingOptions = ThinkingOptions()
    continue_final_message: bool = False
    add_generation_prompt: bool = True
    template_variables: Mapping[str, Any] = field(default_factory=dict)
