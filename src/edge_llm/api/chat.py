"""A chat that waits for an answer, in the form that every dialect turns its requests into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from edge_llm.api.formats import FORMS, form_given, grammar_of
from edge_llm.api.prompts import checked_variables
from edge_llm.api.tools import tools_of
from edge_llm.errors import RequestError
from edge_llm.parsed import Tool
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.tokenizers.chat.messages import Message, checked_messages


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

    def __post_init__(self) -> None:
        """Check the budget.

        Raises:
            RequestError: it is below 0.
        """
        if self.budget is not None and self.budget < 0:
            raise RequestError(
                f"thinking_budget is {self.budget}, expected at least 0", param="thinking_budget"
            )


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
        grammar: holds the content to a form; with ``tools``, where none is called.
        grammar_param: the option that asked for the grammar, for errors.
        thinking: how to think.
        continue_final_message: the answer goes on with the last message, which the assistant has
            begun.
        add_generation_prompt: False continues a last message of the assistant too.
        template_variables: further variables of the chat template.
        cut: a chat that is too long may be cut, where the context policy is to.
    """

    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    grammar: Grammar | None = None
    grammar_param: str = "response_format"
    thinking: ThinkingOptions = field(default_factory=ThinkingOptions)
    continue_final_message: bool = False
    add_generation_prompt: bool = True
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    cut: bool = True


def chat_call(
    messages: Sequence[Message], options: Mapping[str, Any]
) -> tuple[ChatCall, dict[str, Any]]:
    """Return the call that the options of `LLM.chat` make, and the options that are left.

    Raises:
        RequestError: an option has the wrong type.
    """
    rest = dict(options)
    forms = {name: rest.pop(name) for name in FORMS if name in rest}
    choice = rest.pop("tool_choice", "auto")
    _check("tool_choice", choice, str)
    thinking = ThinkingOptions(
        enabled=_check("enable_thinking", rest.pop("enable_thinking", None), bool, None),
        effort=_check("reasoning_effort", rest.pop("reasoning_effort", None), str, None),
        budget=_check("thinking_budget", rest.pop("thinking_budget", None), int, None),
    )
    call = ChatCall(
        messages=checked_messages(messages),
        tools=tools_of(rest.pop("tools", None)),
        tool_choice=choice if choice in ("auto", "none", "required") else NamedTool(choice),
        parallel_tool_calls=_check(
            "parallel_tool_calls", rest.pop("parallel_tool_calls", True), bool
        ),
        grammar=grammar_of(forms),
        grammar_param=form_given(forms),
        thinking=thinking,
        continue_final_message=_check(
            "continue_final_message", rest.pop("continue_final_message", False), bool
        ),
        template_variables=checked_variables(rest.pop("chat_template_kwargs", None)),
    )
    return call, rest


def _check(name: str, value: Any, *kinds: type | None) -> Any:
    allowed = tuple(type(None) if kind is None else kind for kind in kinds)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join("None" if kind is None else kind.__name__ for kind in kinds)
        raise RequestError(
            f"{name} is of type {type(value).__name__}, expected {names}", param=name
        )
    return value
