"""From a request of the Anthropic routes to a `ChatCall`, or to the error that names what is not
supported."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from edge_llm.api.about import ModelAbout
from edge_llm.api.chat import ChatCall, NamedTool, ThinkingOptions, ToolChoice
from edge_llm.parsed import Tool
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.server.anthropic.schemas import (
    Block,
    CountRequest,
    Message,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from edge_llm.server.errors import ApiError, invalid
from edge_llm.server.requests.values import schema_grammar

# Types of tools that the provider has and we have not: named in what refuses them, since what a
# request says is never repeated.
TOOLS = frozenset(
    {
        "advisor",
        "bash",
        "browser_toolset",
        "code_execution",
        "computer",
        "computer_toolset",
        "mcp_toolset",
        "memory",
        "text_editor",
        "tool_search_tool_bm25",
        "tool_search_tool_regex",
        "web_fetch",
        "web_search",
    }
)
_OF_ROLE: dict[str, tuple[type, ...]] = {
    "user": (TextBlock, ToolResultBlock),
    "assistant": (TextBlock, ThinkingBlock, ToolUseBlock),
    "system": (TextBlock,),
}
# The names that templates know.
_EFFORTS: dict[str, str] = {"xhigh": "high", "max": "high"}


def chat_call(request: CountRequest, about: ModelAbout) -> ChatCall:
    """Return what a request asks of a model, as every dialect says it.

    Raises:
        ApiError: 400, naming what is not supported, cannot be enforced or does not go together.
    """
    if request.thread is not None:
        raise ApiError(
            400,
            "'thread' is not supported by this server: send the whole conversation without it.",
            param="thread",
            code="unsupported_parameter",
            extra={"error_code": "thread_unsupported_request"},  # clients send it again, whole
        )
    _check_blocks(request.messages)
    tools = _tools(request)
    messages = _messages(request)
    continued = messages[-1]["role"] == "assistant"
    if continued and messages[-1].get("tool_calls"):
        raise invalid(
            "Invalid 'messages': the last message has tool_use blocks, expected the tool_result "
            "blocks after them.",
            "messages",
            "invalid_value",
        )
    choice = request.tool_choice
    return ChatCall(
        messages=messages,
        tools=tools,
        tool_choice=_tool_choice(request, tools),
        parallel_tool_calls=not (choice and choice.disable_parallel_tool_use),
        grammar=_grammar(request),
        thinking=_thinking(request, about),
        continue_final_message=continued,
    )


def _check_blocks(messages: Sequence[Message]) -> None:
    for index, message in enumerate(messages):
        for place, block in enumerate(message.content):
            if not isinstance(block, _OF_ROLE[message.role]):
                path = f"messages[{index}].content[{place}].type"
                raise invalid(
                    f"Invalid '{path}': a block of type '{block.type}' has no place in a message "
                    f"of role '{message.role}'.",
                    path,
                    "invalid_value",
                )


def _messages(request: CountRequest) -> list[dict[str, Any]]:
    """Return the conversation in OpenAI's shape. Turns of one role that follow each other are one;
    an empty one of the assistant at the end has begun nothing."""
    found: list[dict[str, Any]] = []
    if request.system:
        found.append({"role": "system", "content": _paragraphs(request.system)})
    names: dict[str, str] = {}
    for role, turns in groupby(request.messages, lambda message: message.role):
        blocks = [block for turn in turns for block in turn.content]
        if role == "assistant":
            found.append(_assistant(blocks, names))
        elif role == "user":
            found.extend(_user(blocks, names))
        else:
            found.append({"role": "system", "content": _paragraphs(blocks)})
    if found and found[-1] == {"role": "assistant", "content": ""}:
        found.pop()
    if not found:
        raise invalid(
            "Invalid 'messages': expected at least one that says something.",
            "messages",
            "invalid_value",
        )
    return found


def _assistant(blocks: Iterable[Block], names: dict[str, str]) -> dict[str, Any]:
    """Return a turn of the assistant; ``names`` learns which tool each of its calls is of."""
    text: list[str] = []
    thinking: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in blocks:
        match block:
            case TextBlock():
                text.append(block.text)
            case ThinkingBlock():
                thinking.append(block.thinking)
            case ToolUseBlock():
                names[block.id] = block.name
                arguments = json.dumps(block.input, ensure_ascii=False)
                function = {"name": block.name, "arguments": arguments}
                calls.append({"id": block.id, "type": "function", "function": function})
    content = "".join(text)
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if any(thinking):
        message["reasoning_content"] = "\n".join(thinking)
    if calls:
        message |= {"content": content or None, "tool_calls": calls}
    return message


def _user(blocks: Iterable[Block], names: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield a turn of the user: what calls gave are messages of their own."""
    for is_result, group in groupby(blocks, lambda block: isinstance(block, ToolResultBlock)):
        if not is_result:
            yield {"role": "user", "content": _paragraphs(group)}
            continue
        for block in group:
            assert isinstance(block, ToolResultBlock)
            content = _paragraphs(block.content or ())
            if block.is_error:  # templates have no mark for it
                content = f"Error: {content}" if content else "Error"
            name = {"name": names[block.tool_use_id]} if block.tool_use_id in names else {}
            yield {"role": "tool", "tool_call_id": block.tool_use_id, **name, "content": content}


def _paragraphs(blocks: Iterable[Block]) -> str:
    return "\n".join(block.text for block in blocks if isinstance(block, TextBlock))


def _tools(request: CountRequest) -> tuple[Tool, ...]:
    found: dict[str, Tool] = {}
    for index, tool in enumerate(request.tools or ()):
        path = f"tools[{index}]"
        if tool.type not in (None, "custom"):
            kind = tool.type if tool.type in TOOLS else tool.type.rpartition("_")[0]
            named = f"tools of type '{kind}' are" if kind in TOOLS else "this type of tool is"
            raise invalid(
                f"Invalid '{path}.type': {named} not supported by this server, expected 'custom' "
                "tools, which the client runs.",
                f"{path}.type",
                "unsupported_value",
            )
        if tool.input_schema is None:
            raise invalid(
                f"Missing required parameter: '{path}.input_schema'.",
                f"{path}.input_schema",
                "missing_required_parameter",
            )
        if tool.name in found:
            raise invalid(
                f"Invalid '{path}.name': expected a name of its own for each tool.",
                f"{path}.name",
                "invalid_value",
            )
        schema_grammar(tool.input_schema or {"type": "object"}, f"{path}.input_schema")
        found[tool.name] = Tool(tool.name, tool.description, tool.input_schema)
    return tuple(found.values())


def _tool_choice(request: CountRequest, tools: Sequence[Tool]) -> ToolChoice:
    choice = request.tool_choice
    if choice is None or choice.type in ("auto", "none"):
        return "none" if choice is not None and choice.type == "none" else "auto"
    if not tools:
        raise invalid(
            "Invalid 'tool_choice': expected 'tools' with it.", "tool_choice", "invalid_value"
        )
    if choice.type == "any":
        return "required"
    if choice.name is None:
        raise invalid(
            "Missing required parameter: 'tool_choice.name'.",
            "tool_choice.name",
            "missing_required_parameter",
        )
    if choice.name not in {tool.name for tool in tools}:
        raise invalid(
            "Invalid 'tool_choice.name': expected the name of one of the 'tools'.",
            "tool_choice.name",
            "invalid_value",
        )
    return NamedTool(choice.name)


def _thinking(request: CountRequest, about: ModelAbout) -> ThinkingOptions:
    """Return how to think. A request that does not speak of it wants an answer alone, as far as the
    model can; an effort that the model does not know says nothing to it."""
    thinking = request.thinking
    if thinking is None:
        return ThinkingOptions(enabled=False if about.thinking_switch else None)
    if thinking.type == "disabled":
        return ThinkingOptions(enabled=False)
    asked = request.output_config.effort if request.output_config else None
    effort = None if asked is None else _EFFORTS.get(asked, asked)
    effort = effort if effort in about.efforts else None
    if thinking.type == "adaptive":
        return ThinkingOptions(effort=effort)
    if thinking.budget_tokens is None:
        raise invalid(
            "Missing required parameter: 'thinking.budget_tokens'.",
            "thinking.budget_tokens",
            "missing_required_parameter",
        )
    return ThinkingOptions(enabled=True, effort=effort, budget=thinking.budget_tokens)


def _grammar(request: CountRequest) -> Grammar | None:
    """Return the grammar that the answer's text is held to. The option has two places, the older
    one beside the others."""
    config = request.output_config
    if config is not None and config.format is not None:
        return schema_grammar(config.format.schema_, "output_config.format.schema")
    if request.output_format is not None:
        return schema_grammar(request.output_format.schema_, "output_format.schema")
    return None
