"""From a request to ``/v1/responses`` to a chat that waits for an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from edge_llm.api.chat import ChatCall, NamedTool, ThinkingOptions, ToolChoice
from edge_llm.errors import ContextLengthError, RequestError
from edge_llm.parsed import Tool
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.server.errors import ApiError, invalid, translate
from edge_llm.server.models.model import Model
from edge_llm.server.openai.responses.conversation import (
    Item,
    item_of,
    messages_of,
    unanswerable,
)
from edge_llm.server.openai.responses.items import ItemReference
from edge_llm.server.openai.responses.schemas import (
    ENCRYPTED_REASONING,
    LOGPROBS,
    AllowedTools,
    JsonObject,
    JsonSchema,
    NamedFunction,
    ResponsesRequest,
)
from edge_llm.server.openai.responses.store import ResponseStore
from edge_llm.server.requests.validation import check_sampling

FORMAT = "text.format"
# What the chat calls a part of the request -> its name here.
_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "enable_thinking": "reasoning.effort",
        "messages": "input",
        "reasoning_effort": "reasoning.effort",
    }
)


def check(request: ResponsesRequest) -> None:
    """Check what the fields of a request mean together.

    Raises:
        ApiError: 400 naming the field.
    """
    check_sampling(request, least_tokens=1)
    if request.n not in (None, 1):
        raise _unsupported("n", "a response is one answer")
    if request.background:
        raise _unsupported("background", "responses are made while the client waits")
    for index, name in enumerate(request.include or ()):
        if name not in (LOGPROBS, ENCRYPTED_REASONING):
            raise _unsupported(
                f"include[{index}]", f"'{LOGPROBS}' and '{ENCRYPTED_REASONING}' are the choices"
            )
    if request.max_output_tokens is not None and "max_tokens" in request.sampling():
        raise invalid(
            "'max_output_tokens' and 'max_tokens' are one parameter.",
            "max_output_tokens",
            "invalid_value",
        )


def cuts(request: ResponsesRequest, model: Model) -> bool:
    """Return whether a conversation that is too long loses a part.

    Raises:
        ApiError: 400: the request asks for what the server was not started with.
    """
    wanted = request.truncation
    if wanted not in (None, "auto", "disabled"):
        raise _unsupported("truncation", "'auto' and 'disabled' are the choices")
    served = model.context_policy != "error"
    if wanted == "auto" and not served:
        raise _unsupported("truncation", "'disabled' is the one choice")
    return served and wanted != "disabled"


def conversation_of(
    request: ResponsesRequest, store: ResponseStore, instance: str = ""
) -> tuple[Item, ...]:
    """Return all items that a request is to answer: of the responses before it, and its own, whose
    ids begin with ``instance``.

    Raises:
        ApiError: 400: it refers to what is not stored, or has the output of no call.
    """
    before: tuple[Item, ...] = ()
    if request.previous_response_id is not None:
        previous = store.get(request.previous_response_id)
        if previous is None:
            raise invalid(
                "The previous response is not stored here (any more). Send the whole "
                "conversation as 'input'.",
                "previous_response_id",
                "previous_response_not_found",
            )
        before = previous.conversation
    items: list[Item] = []
    for index, given in enumerate(request.input):
        if isinstance(given, ItemReference):
            item = store.item(given.id)
        else:
            item = item_of(given, instance)
        if item is None:
            raise invalid(
                f"The item that 'input[{index}]' refers to is not stored here (any more).",
                f"input[{index}].id",
                "item_not_found",
            )
        items.append(item)
    if (lost := unanswerable(before, items)) is not None:
        raise invalid(
            f"'input[{lost}]' is the output of a call that is not in the conversation.",
            f"input[{lost}].call_id",
            "invalid_value",
        )
    return (*before, *items)


def call_of(request: ResponsesRequest, conversation: Sequence[Item], *, cut: bool) -> ChatCall:
    """Return the chat that a request means, which may be ``cut`` or not.

    Raises:
        ApiError: 400: a choice of tools that are not there, or a form of text that cannot be
            enforced.
    """
    tools, choice = _tools(request)
    reasoning = request.reasoning
    messages = messages_of(request.instructions, conversation)
    if not messages:  # thinking that another server sealed is all there is
        raise invalid("Invalid 'input': expected something to answer.", "input", "invalid_value")
    return ChatCall(
        messages=messages,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        grammar=_grammar(request),
        grammar_param=f"{FORMAT}.schema",
        thinking=ThinkingOptions(
            effort=reasoning.effort if reasoning is not None else None,
            budget=request.thinking_budget,
        ),
        continue_final_message=bool(request.continue_final_message),
        add_generation_prompt=request.add_generation_prompt is not False,
        template_variables=request.chat_template_kwargs or {},
        cut=cut,
    )


def refusal(error: RequestError, request: ResponsesRequest) -> ApiError:
    """Return what it means to the client that a chat could not be begun: the chat has the names of
    another route, and the tools that may be called."""
    refused = translate(error, "input")
    if isinstance(error, ContextLengthError):
        return refused
    param = refused.param or ""
    if tool := re.match(r"tools\[(\d+)\]", param):
        name = _tools(request)[0][int(tool[1])].name
        place = next(i for i, given in enumerate(request.tools or ()) if given.name == name)
        param = f"tools[{place}]"
    elif not param.startswith(("tools", FORMAT)):
        return invalid(refused.message, _NAMES.get(param, refused.param), refused.code)
    return invalid(refused.message, param, "unsupported_value")


def _tools(request: ResponsesRequest) -> tuple[list[Tool], ToolChoice]:
    tools = [
        Tool(tool.name, tool.description, tool.parameters or {}) for tool in request.tools or ()
    ]
    names: set[str] = set()
    for index, tool in enumerate(tools):
        if tool.name in names:
            param = f"tools[{index}].name"
            raise invalid(
                f"Invalid '{param}': expected a name that no other tool has.",
                param,
                "invalid_value",
            )
        names.add(tool.name)
        if request.tool_choice != "none":
            try:
                Grammar.json_schema(tool.parameters or {"type": "object"})
            except RequestError as exc:
                param = f"tools[{index}]"
                raise invalid(f"Invalid '{param}': {exc}.", param, "unsupported_value") from exc
    match request.tool_choice:
        case None:
            return tools, "auto"
        case NamedFunction(name=name):
            _check_known([name], names, "tool_choice.name")
            return tools, NamedTool(name)
        case AllowedTools(mode=mode, tools=allowed):
            chosen = [function.name for function in allowed]
            _check_known(chosen, names, "tool_choice.tools")
            return [tool for tool in tools if tool.name in chosen], mode
        case "required" if not tools:
            raise invalid(
                "'tool_choice' is 'required', and there are no 'tools'.",
                "tool_choice",
                "invalid_value",
            )
        case word:
            return tools, word


def _check_known(chosen: Sequence[str], names: set[str], param: str) -> None:
    if not names.issuperset(chosen):
        raise invalid(
            f"Invalid '{param}': expected names of functions in 'tools'.", param, "invalid_value"
        )


def _grammar(request: ResponsesRequest) -> Any:
    match request.text.format if request.text is not None else None:
        case JsonObject():
            return Grammar.json_object()
        case JsonSchema(schema_=schema):
            try:
                return Grammar.json_schema(schema)
            except RequestError as exc:
                param = f"{FORMAT}.schema"
                raise invalid(f"Invalid '{param}': {exc}.", param, "unsupported_value") from exc
        case _:
            return None


def _unsupported(param: str, why: str) -> ApiError:
    return invalid(f"Invalid '{param}': {why} on this server.", param, "unsupported_value")
