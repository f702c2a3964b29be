"""From the requests of the generating Ollama routes to a `ChatCall` and sampling parameters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from edge_llm.api.chat import ChatCall, ThinkingOptions
from edge_llm.parsed import Tool
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.runner.sampling import SamplingParams
from edge_llm.server.errors import invalid
from edge_llm.server.models.model import Model
from edge_llm.server.ollama.schemas import Asking, ChatRequest, GenerateRequest, Message, Options
from edge_llm.server.requests.values import schema_grammar


def chat_of(request: ChatRequest) -> ChatCall:
    """Return what ``/api/chat`` asks for. A last message of the assistant that calls nothing is
    continued.

    Raises:
        ApiError: 400, naming what cannot be enforced.
    """
    messages = _messages(request.messages or ())
    last = messages[-1]
    begun = last["role"] == "assistant" and not last.get("tool_calls") and bool(last["content"])
    return ChatCall(
        messages=messages,
        tools=_tools(request),
        grammar=grammar_of(request),
        thinking=_thinking(request),
        continue_final_message=begun,
        cut=request.truncate is not False,
    )


def chat_of_prompt(request: GenerateRequest) -> ChatCall:
    """Return what ``/api/generate`` asks for, as a chat of one message.

    Raises:
        ApiError: 400, naming what cannot be enforced.
    """
    system = [{"role": "system", "content": request.system}] if request.system else []
    return ChatCall(
        messages=[*system, {"role": "user", "content": request.prompt or ""}],
        grammar=grammar_of(request),
        thinking=_thinking(request),
        cut=request.truncate is not False,
    )


def grammar_of(request: Asking) -> Grammar | None:
    """Return the grammar that ``format`` asks for.

    Raises:
        ApiError: 400, a schema that cannot be enforced.
    """
    match request.format:
        case None | "":
            return None
        case "json":
            return Grammar.json_object()
        case schema:
            return schema_grammar(schema, "format")


def params_of(model: Model, request: Asking) -> SamplingParams:
    """Return how to sample.

    Raises:
        ApiError: 400: options that contradict each other, or that cannot be honoured.
        RequestError: two names of one parameter.
    """
    options = request.options or Options()
    given = options.sampling()
    if options.stop is not None:
        given["stop"] = [text for text in options.stop if text]
    if given.get("seed") == -1:  # a random one
        del given["seed"]
    if options.num_predict is not None:
        if "max_tokens" in given:
            raise invalid(
                "'options.num_predict' and another name of it cannot both be set.",
                "options.num_predict",
            )
        if options.num_predict > 0:
            given["max_tokens"] = options.num_predict
    if given.get("max_tokens") == 0:
        raise invalid(
            "Invalid 'options.max_tokens': expected at least one token.",
            "options.max_tokens",
            "integer_below_min_value",
        )
    if options.repeat_last_n == 0:
        given["repetition_penalty"] = 1.0
    if request.logprobs:
        given["top_logprobs"] = request.top_logprobs or 0
    params = model.default_params(**given)
    if (options.repeat_last_n or 0) > 0 and params.repetition_penalty != 1:
        raise invalid(
            "Invalid 'options.repeat_last_n': expected -1 or 0, since the repeat penalty looks at "
            "all tokens or at none.",
            "options.repeat_last_n",
            "unsupported_value",
        )
    return params


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return the conversation in OpenAI's shape, with ids for calls that have none: what tools gave
    is matched by name, and by order."""
    found: list[dict[str, Any]] = []
    waiting: list[tuple[str, str]] = []  # calls without a result: id and name
    for message in messages:
        item: dict[str, Any] = {"role": message.role, "content": message.content or ""}
        if message.thinking and message.role == "assistant":
            item["reasoning_content"] = message.thinking
        if message.tool_calls and message.role == "assistant":
            calls: list[dict[str, Any]] = []
            for call in message.tool_calls:
                number = len(calls) + sum(len(other.get("tool_calls", ())) for other in found)
                id_ = call.id or f"call_{number}"
                function = {
                    "name": call.function.name,
                    "arguments": json.dumps(call.function.arguments, ensure_ascii=False),
                }
                calls.append({"id": id_, "type": "function", "function": function})
                waiting.append((id_, call.function.name))
            item["tool_calls"] = calls
        if message.role == "tool":
            item |= _answered(message, waiting)
        found.append(item)
    return found


def _answered(message: Message, waiting: list[tuple[str, str]]) -> dict[str, str]:
    """Return which call a result belongs to, and take that off the ``waiting`` ones."""
    for index, (id_, name) in enumerate(waiting):
        if message.tool_call_id in (None, id_) and message.tool_name in (None, name):
            del waiting[index]
            return {"tool_call_id": id_, "name": name}
    name_ = {} if message.tool_name is None else {"name": message.tool_name}
    return {"tool_call_id": message.tool_call_id or "", **name_}


def _tools(request: ChatRequest) -> tuple[Tool, ...]:
    found: dict[str, Tool] = {}
    for index, tool in enumerate(request.tools or ()):
        function = tool.function
        path = f"tools[{index}].function"
        if function.name in found:
            raise invalid(
                f"Invalid '{path}.name': expected a name of its own for each tool.",
                f"{path}.name",
                "invalid_value",
            )
        schema_grammar(function.parameters or {"type": "object"}, f"{path}.parameters")
        found[function.name] = function.tool()
    return tuple(found.values())


def _thinking(request: Asking) -> ThinkingOptions:
    if isinstance(request.think, str):
        return ThinkingOptions(effort=request.think)
    return ThinkingOptions(enabled=request.think)
