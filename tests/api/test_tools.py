"""Tools of the Python API: functions and objects, to what templates and grammars read."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from edge_llm.api.tools import template_form, tools_of
from edge_llm.errors import RequestError
from edge_llm.parsed import Tool


def weather(
    city: Annotated[str, Field(description="where")],
    unit: Literal["C", "F"] = "C",
    *,
    days: list[int] | None = None,
) -> str:
    """Tell the weather."""
    return f"{city} {unit} {days}"


def test_a_function_is_a_tool_by_its_name_docstring_and_annotations() -> None:
    [tool] = tools_of([weather])
    assert (tool.name, tool.description) == ("weather", "Tell the weather.")
    assert tool.parameters == {
        "type": "object",
        "additionalProperties": False,
        "required": ["city"],
        "properties": {
            "city": {"type": "string", "description": "where"},
            "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
            "days": {
                "anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}],
                "default": None,
            },
        },
    }


def test_properties_named_title_stay() -> None:
    def book(title: str, name: int) -> None:
        """Find it."""

    [tool] = tools_of([book])
    assert tool.parameters["properties"] == {
        "title": {"type": "string"},
        "name": {"type": "integer"},
    }


def test_objects_are_tools_with_and_without_their_wrapping() -> None:
    function = {"name": "f", "description": "does f", "parameters": {"type": "object"}}
    expected = Tool("f", "does f", {"type": "object"})
    assert tools_of([function]) == (expected,)
    assert tools_of([{"type": "function", "function": function}]) == (expected,)
    assert tools_of(iter([expected])) == (expected,)
    assert tools_of(None) == ()
    assert template_form([Tool("g")]) == [
        {
            "type": "function",
            "function": {"name": "g", "parameters": {"type": "object", "properties": {}}},
        }
    ]


def positional(first: int, /, *, second: int) -> None:
    """Cannot be called by names alone."""


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ("weather", "expected a list"),
        ({"name": "f"}, "expected a list"),
        (7, "expected a list"),
        ([7], "expected a function or an object"),
        ([{"name": 7}], "no function with a name"),
        ([{"type": "function", "function": None}], "no function with a name"),
        ([{"name": "f", "parameters": []}], "no schema"),
        ([{"name": "f", "description": 1}], "no text as description"),
        ([weather, weather], "two tools are named weather"),
        ([positional], "no JSON schema"),
    ],
)
def test_what_is_no_tool(tools: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        tools_of(tools)
    assert caught.value.param == "tools"
