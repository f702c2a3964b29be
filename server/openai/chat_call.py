"""From a chat request to the chat that is to be answered."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from edge_llm.api.chat import ChatCall, ThinkingOptions
from edge_llm.errors import ContextLengthError, RequestError
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.runner.sampling import SamplingParams
from edge_llm.server.errors import invalid
from edge_llm.server.models.model import Model
from edge_llm.server.openai.messages import told
from edge_llm.server.openai.schemas import ChatRequest
from edge_llm.server.requests.structured import form_of, refused_form
from edge_llm.server.requests.tools import (
    Calling,
    FunctionName,
    calling,
    calling_functions,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for.

    Attributes:
        call: the chat.
        fields: what `LLM.chat_jobs` calls a part of it, and the field that it came from.
        places: where each tool of the call is in the request.
        legacy: calls are told as ``function_call``.
    """

    call: ChatCall
    fields: Mapping[str, str]
    places: tuple[str, ...]
    legacy: bool

    def refusal(self, error: RequestError, model: Model, params: SamplingParams) -> Exception:
        """Return the error for a chat that the model cannot be asked. What is wrong with tools is
        said of one of them, where one alone is wrong already."""
        part = (error.param or "").partition("[")[0]
        field = self.fields.get(part)
        if field is None or isinstance(error, ContextLengthError):
            return error
        if part == "tools":
            if (place := self._place(error.param or "")) is not None:
                return refused_form(error, place)
            for tool, place in zip(self.call.tools, self.places, strict=True):
                grammar = Grammar.json_schema(tool.parameters or {"type": "object"}, param=place)
                alone = replace(self.call, tools=(), tool_choice="auto", grammar=grammar)
                try:
                    model.chat_jobs(alone, params, 1)
                except RequestError as exc:
                    return refused_form(exc, place)
        return refused_form(error, field)

    def _place(self, param: str) -> str | None:
        """Return where the request has the tool that ``param``, ``tools[i].…``, is about."""
        found = re.match(r"tools\[(\d+)\]", param)
        return None if found is None else self.places[int(found[1])]


def asked_for(request: ChatRequest) -> Asked:
    """Return what a request asks for.

    Raises:
        ApiError: fields that contradict each other, or a form or tool that cannot be enforced.
    """
    form = form_of(request)
    calls = _calling(request)
    if calls.choice != "none":
        for tool, place in zip(calls.tools, calls.places, strict=True):
            try:
                Grammar.json_schema(tool.parameters or {"type": "object"}, param=place)
            except RequestError as exc:
                raise refused_form(exc, place) from exc
    if request.continue_final_message and request.add_generation_prompt:
        raise invalid(
            "'add_generation_prompt' cannot be true where 'continue_final_message' is.",
            "add_generation_prompt",
        )
    call = ChatCall(
        messages=told(request.messages),
        tools=calls.tools,
        tool_choice=calls.choice,
        parallel_tool_calls=request.parallel_tool_calls is not False and not calls.legacy,
        grammar=None if form is None else form.grammar,
        thinking=_thinking(request),
        continue_final_message=bool(request.continue_final_message),
        add_generation_prompt=request.add_generation_prompt is not False,
        template_variables=request.chat_template_kwargs or {},
    )
    kind = "functions" if calls.legacy else "tools"
    fields = {name: name for name in ("reasoning_effort", "enable_thinking", "thinking_budget")}
    fields |= {"tools": kind, "tool_choice": "function_call" if calls.legacy else "tool_choice"}
    if form is not None:
        fields["response_format"] = form.param
    return Asked(call, fields, calls.places, calls.legacy)


def _calling(request: ChatRequest) -> Calling:
    if not request.functions and not isinstance(request.function_call, FunctionName):
        return calling(request.tools, request.tool_choice)
    for name in ("tools", "tool_choice"):
        if getattr(request, name):
            raise invalid(f"'{name}' cannot be given together with 'functions'.", name)
    return calling_functions(request.functions, request.function_call)


def _thinking(request: ChatRequest) -> ThinkingOptions:
    enabled = request.enable_thinking
    variable = (request.chat_template_kwargs or {}).get("enable_thinking")
    if isinstance(variable, bool) and enabled not in (None, variable):
        raise invalid("'enable_thinking' contradicts 'chat_template_kwargs'.", "enable_thinking")
    return ThinkingOptions(
        enabled=enabled, effort=request.reasoning_effort, budget=request.thinking_budget
    )
