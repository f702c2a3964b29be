"""The forms of answers that callers can ask for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from edge_llm.api.chat import ChatCall, NamedTool, ThinkingOptions, chat_call
from edge_llm.api.formats import grammar_of
from edge_llm.errors import RequestError
from edge_llm.runner.guidance.grammar import Grammar

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}


class Point(BaseModel):
    x: int


@dataclass
class Place:
    x: int


def schema_in(grammar: Grammar) -> Any:
    return json.loads(grammar.text.removeprefix("start: %json "))


@pytest.mark.parametrize(
    "options",
    [
        {"json_schema": SCHEMA},
        {"response_format": Point},
        {"response_format": Place},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "point", "strict": True, "schema": SCHEMA},
            },
            "regex": None,
            "grammar": None,
        },
    ],
)
def test_the_same_schema_in_many_ways(options: dict[str, Any]) -> None:
    grammar = grammar_of(options)
    assert grammar is not None
    assert schema_in(grammar) == schema_in(Grammar.json_schema(SCHEMA))


def test_other_forms() -> None:
    assert grammar_of({}) is None
    assert grammar_of({"response_format": {"type": "text"}}) is None
    assert grammar_of({"response_format": {"type": "json_object"}}) is not None
    assert grammar_of({"regex": "[a-z]+"}) is not None
    assert grammar_of({"choice": ["yes", "no"]}) is not None
    assert grammar_of({"grammar": 'start: "a"'}) is not None
    assert grammar_of({"grammar": 'root ::= "a"'}) is not None


@pytest.mark.parametrize(
    ("options", "param", "message"),
    [
        ({"regex": "a", "choice": ["b"]}, "choice", "cannot both"),
        ({"response_format": {"type": "xml"}}, "response_format", "'xml'"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "json_schema.schema"),
        ({"response_format": object()}, "response_format", "no JSON schema"),
        ({"json_schema": {"type": "string", "contains": 1}}, "json_schema", None),
        ({"regex": 7}, "regex", None),
        ({"choice": "yes"}, "choice", None),
        ({"choice": []}, "choice", "no list of 1"),
        ({"regex": ""}, "regex", "empty"),
        ({"grammar": ""}, "grammar", "empty"),
        ({"grammar": "root ::= ("}, "grammar", None),
    ],
)
def test_what_is_no_form(options: dict[str, Any], param: str, message: str | None) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        grammar_of(options)
    assert caught.value.param == param


CHAT = [{"role": "user", "content": "hi"}]


def test_options_of_a_chat_are_taken_apart() -> None:
    call, rest = chat_call(
        CHAT,
        {
            "tools": [{"name": "f"}],
            "tool_choice": "f",
            "enable_thinking": False,
            "thinking_budget": 8,
            "temperature": 0.5,
            "stpo": "x",
        },
    )
    assert isinstance(call, ChatCall)
    assert call.tool_choice == NamedTool("f")
    assert call.thinking == ThinkingOptions(enabled=False, budget=8)
    assert rest == {"temperature": 0.5, "stpo": "x"}


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"tool_choice": 7}, "tool_choice"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"enable_thinking": 1}, "enable_thinking"),
        ({"reasoning_effort": 3}, "reasoning_effort"),
        ({"thinking_budget": True}, "thinking_budget"),
        ({"thinking_budget": -1}, "thinking_budget"),
        ({"continue_final_message": None}, "continue_final_message"),
        ({"chat_template_kwargs": []}, "chat_template_kwargs"),
    ],
)
def test_options_of_a_chat_of_a_wrong_type(options: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        chat_call(CHAT, options)
    assert caught.value.param == param


def test_no_choices_are_refused_rather_than_any_text_given() -> None:
    with pytest.raises(RequestError, match="list of 1 to"):
        grammar_of({"choice": []})
