"""Tools, as callers of the Python API give them: functions, or JSON objects as in HTTP requests."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from edge_llm.errors import RequestError
from edge_llm.parsed import Tool

ToolLike = Tool | Mapping[str, Any] | Callable[..., Any]


def tools_of(tools: Iterable[ToolLike] | None) -> tuple[Tool, ...]:
    """Return tools from functions, from objects as OpenAI's API has them (with or without the
    outer ``{"type": "function", "function": …}``), or from `Tool` itself.

    Raises:
        RequestError: something else is among them, or two have the same name.
    """
    if tools is None:
        return ()
    if isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Iterable):
        raise _wrong(f"tools are of type {type(tools).__name__}, expected a list")
    found = tuple(_tool_of(tool) for tool in tools)
    names = [tool.name for tool in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise _wrong(f"two tools are named {twice}")
    return found


def template_form(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """Return tools as chat templates read them: the objects of OpenAI's API."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                **({} if tool.description is None else {"description": tool.description}),
                "parameters": dict(tool.parameters) or {"type": "object", "properties": {}},
            },
        }
        for tool in tools
    ]


def _tool_of(tool: Any) -> Tool:
    if isinstance(tool, Tool):
        return tool
    if isinstance(tool, Mapping):
        return _of_object(tool.get("function", tool))
    if callable(tool):
        return _of_function(tool)
    raise _wrong(f"a tool is of type {type(tool).__name__}, expected a function or an object")


def _of_object(function: Any) -> Tool:
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise _wrong("a tool has no function with a name")
    description, parameters = function.get("description"), function.get("parameters")
    if not isinstance(description, str | None) or not isinstance(parameters, Mapping | None):
        raise _wrong(f"the tool {function['name']} has no text as description, or no schema")
    return Tool(function["name"], description, parameters or {})


def _of_function(function: Callable[..., Any]) -> Tool:
    """Return a function as a tool: its name, its docstring, and the schema of its arguments by
    their annotations."""
    from pydantic import TypeAdapter  # paid for by those who use it

    name = getattr(function, "__name__", type(function).__name__)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(cast(Any, function))
        schema = adapter.json_schema()
    except Exception as exc:  # whatever an annotation does to pydantic
        raise _wrong(f"the arguments of the tool {name} have no JSON schema: {exc}") from exc
    return Tool(name, inspect.getdoc(function), without_titles(schema))


def without_titles(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON schema that pydantic made, without the titles that only repeat its names."""

    def clean(value: Any, names: bool) -> Any:
        if isinstance(value, Mapping):
            return {
                key: clean(item, not names and key in ("properties", "$defs"))
                for key, item in value.items()
                if names or key != "title"
            }
        return [clean(item, False) for item in value] if isinstance(value, list) else value

    return dict(clean(schema, False))


def _wrong(message: str) -> RequestError:
    return RequestError(message, param="tools")
