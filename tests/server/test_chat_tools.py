"""Tools, thinking and the form of an answer, from the request to the model and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fixtures_marked import Marked

from edge_llm.api.chat import NamedTool, ThinkingOptions
from edge_llm.errors import RequestError
from edge_llm.parsed import Tool
from edge_llm.runner.guidance.grammar import Grammar

PATH = "/v1/chat/completions"
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOLS = [
    {"type": "function", "function": {"name": "add", "description": "d", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now", "strict": True}},
]
ADD, NOW = Tool("add", "d", SCHEMA), Tool("now")


def ask(client: Any, **change: Any) -> dict[str, Any]:
    response = client.post(PATH, json=CHAT | change)
    assert response.status_code == 200, response.text
    assert "x-edge-llm-ignored" not in response.headers
    body: dict[str, Any] = response.json()
    return body


def chunks(client: Any, **change: Any) -> list[dict[str, Any]]:
    response = client.post(PATH, json=CHAT | {"stream": True} | change)
    assert response.status_code == 200, response.text
    lines = response.text.splitlines()
    assert lines[-2] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def joined(parts: list[dict[str, Any]], choice: int = 0) -> dict[str, Any]:
    """The message that the deltas of a choice make, as clients put them together."""
    message: dict[str, Any] = {}
    calls: list[dict[str, Any]] = []
    for part in parts:
        for one in part["choices"]:
            if one["index"] != choice:
                continue
            delta = dict(one["delta"])
            for call in delta.pop("tool_calls", ()):
                if call["index"] == len(calls):
                    assert call["function"]["arguments"] == ""
                    calls.append({"id": call["id"], "type": call["type"], **call["function"]})
                else:
                    assert call.keys() == {"index", "function"}
                    calls[call["index"]]["arguments"] += call["function"]["arguments"]
            for name, text in delta.items():
                message[name] = (message.get(name) or "") + text if text is not None else None
            message["finish_reason"] = one["finish_reason"]
    return message | {"calls": calls}


# --- what reaches the model --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "tools", "expected"),
    [
        (None, (ADD, NOW), "auto"),
        ("auto", (ADD, NOW), "auto"),
        ("none", (ADD, NOW), "none"),
        ("required", (ADD, NOW), "required"),
        ({"type": "function", "function": {"name": "now"}}, (ADD, NOW), NamedTool("now")),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "now"}}],
                },
            },
            (NOW,),
            "required",
        ),
    ],
)
def test_tools_and_the_choice_among_them(
    client: Any, model: Any, choice: Any, tools: Any, expected: Any
) -> None:
    ask(client, tools=TOOLS, tool_choice=choice)
    (call,) = model.calls
    assert (call.tools, call.tool_choice, call.parallel_tool_calls) == (tools, expected, True)
    ask(client, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False)
    assert model.calls[-1].parallel_tool_calls is False


@pytest.mark.parametrize("choice", [None, "none", "auto"])
def test_no_tools(client: Any, model: Any, choice: Any) -> None:
    for tools in ([], None):
        ask(client, tools=tools, tool_choice=choice)
        assert model.calls[-1].tools == ()


def test_functions_are_tools_of_which_one_is_called(client: Any, model: Any) -> None:
    functions = [tool["function"] for tool in TOOLS]
    ask(client, functions=functions, function_call={"name": "add"})
    (call,) = model.calls
    assert (call.tools, call.tool_choice) == ((ADD, NOW), NamedTool("add"))
    assert call.parallel_tool_calls is False
    ask(client, functions=functions)
    assert model.calls[-1].tool_choice == "auto"


OBJECT = Grammar.json_object()
FORMS: list[tuple[dict[str, Any], Grammar | None]] = [
    ({"response_format": None}, None),
    ({"response_format": {"type": "text"}}, None),
    ({"response_format": {"type": "json_object"}}, OBJECT),
    (
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
        Grammar.json_schema(SCHEMA),
    ),
    (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "description": "d", "strict": True, "schema": SCHEMA},
            }
        },
        Grammar.json_schema(SCHEMA),
    ),
    ({"json_schema": SCHEMA}, Grammar.json_schema(SCHEMA)),
    ({"guided_json": SCHEMA}, Grammar.json_schema(SCHEMA)),
    ({"guided_json": json.dumps(SCHEMA)}, Grammar.json_schema(SCHEMA)),
    ({"regex": "a+"}, Grammar.regex("a+")),
    ({"guided_regex": "a+"}, Grammar.regex("a+")),
    ({"choice": ["a", "b"]}, Grammar.choice(["a", "b"])),
    ({"guided_choice": ["a", "b"]}, Grammar.choice(["a", "b"])),
    ({"grammar": 'root ::= "a"'}, Grammar.gbnf('root ::= "a"')),
    ({"guided_grammar": 'start: "a"'}, Grammar.lark('start: "a"')),
    ({"structured_outputs": {"json": SCHEMA}}, Grammar.json_schema(SCHEMA)),
    ({"structured_outputs": {"regex": "a+"}}, Grammar.regex("a+")),
    ({"structured_outputs": {"choice": ["a"]}}, Grammar.choice(["a"])),
    ({"structured_outputs": {"grammar": 'root ::= "a"'}}, Grammar.gbnf('root ::= "a"')),
    ({"structured_outputs": {"json_object": True}}, OBJECT),
    ({"structured_outputs": {}}, None),
    ({"grammar": "", "regex": "", "choice": [], "guided_json": "", "json_schema": None}, None),
]


@pytest.mark.parametrize(("change", "expected"), FORMS)
def test_every_name_for_the_form_of_an_answer(
    client: Any, model: Any, change: Any, expected: Grammar | None
) -> None:
    ask(client, **change)
    assert model.calls[-1].grammar == expected
    response = client.post("/v1/completions", json={"prompt": "hi"} | change)
    assert response.status_code == 200, response.text
    assert model.grammars == ([] if expected is None else [expected])


def test_a_form_that_the_model_refuses_is_named(client: Any, model: Any) -> None:
    response = client.post("/v1/completions", json={"prompt": "hi", "guided_choice": ["refused"]})
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (
        400,
        "guided_choice",
        "unsupported_value",
    )
    assert "no such thing" in error["message"]


@pytest.mark.parametrize(
    ("said", "change", "param"),
    [
        ("response_format", {"guided_regex": "a"}, "guided_regex"),
        ("response_format", {"response_format": {"type": "json_object"}}, "response_format"),
        ("tools", {"tools": TOOLS}, "tools"),
        ("tools", {"functions": [{"name": "f"}]}, "functions"),
        ("reasoning_effort", {"reasoning_effort": "low"}, "reasoning_effort"),
        ("enable_thinking", {"enable_thinking": True}, "enable_thinking"),
    ],
)
def test_what_the_model_cannot_honour_is_named(
    client: Any, model: Any, monkeypatch: Any, said: str, change: Any, param: str
) -> None:
    def refuse(call: Any, *arguments: Any) -> Any:
        if said == "tools" and not call.tools:  # each of them would do
            return []
        raise RequestError("the keyword 'x' cannot be enforced", param=said)

    monkeypatch.setattr(model, "chat_jobs", refuse)
    response = client.post(PATH, json=CHAT | change)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (
        400,
        param,
        "unsupported_value",
    )
    assert "keyword 'x'" in error["message"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ThinkingOptions()),
        ({"reasoning_effort": "low"}, ThinkingOptions(effort="low")),
        ({"enable_thinking": False}, ThinkingOptions(enabled=False)),
        ({"thinking_budget": 7.0}, ThinkingOptions(budget=7)),
        ({"chat_template_kwargs": {"enable_thinking": True}}, ThinkingOptions()),  # the model's
        (
            {"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": True}},
            ThinkingOptions(enabled=True),
        ),
    ],
)
def test_how_to_think(client: Any, model: Any, change: Any, expected: Any) -> None:
    ask(client, **change)
    assert model.calls[-1].thinking == expected


def test_the_tool_that_the_model_refuses_is_named(
    client: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any, **options: Any) -> Any:
        raise RequestError("no", param="tools[1].function.parameters")

    monkeypatch.setattr(model, "chat_jobs", refuse)
    tools = [{"type": "function", "function": {"name": name}} for name in ("a", "b")]
    response = client.post(PATH, json=CHAT | {"tools": tools})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "tools[1]")


def test_an_answer_that_has_begun(client: Any, model: Any) -> None:
    begun = [*CHAT["messages"], {"role": "assistant", "content": "He"}]
    for change in ({}, {"continue_final_message": False, "add_generation_prompt": True}):
        ask(client, messages=begun, **change)
        call = model.calls[-1]
        assert (call.continue_final_message, call.add_generation_prompt) == (False, True)
    ask(client, messages=begun, continue_final_message=True, add_generation_prompt=False)
    call = model.calls[-1]
    assert (call.continue_final_message, call.add_generation_prompt) == (True, False)


HISTORY: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{"}},
                {"index": 1, "function": {"name": "now"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{"}},
                {"type": "function", "function": {"name": "now", "arguments": None}},
            ],
        },
    ),
    (
        {"role": "assistant", "function_call": {"name": "add", "arguments": '{"a": 1}'}},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
            ],
        },
    ),
    (
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "3"}]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
    ),
    (
        {"role": "tool", "tool_call_id": "c1", "content": None},
        {"role": "tool", "tool_call_id": "c1", "content": ""},
    ),
    (
        {"role": "function", "name": "add", "content": "3"},
        {"role": "tool", "name": "add", "content": "3"},
    ),
    (
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "refusal": None},
        {"role": "assistant", "content": "no"},
    ),
    (
        {"role": "assistant", "content": "a", "reasoning_content": "r", "tool_calls": []},
        {"role": "assistant", "content": "a", "reasoning_content": "r"},
    ),
    ({"role": "assistant", "content": None}, {"role": "assistant", "content": ""}),
]


@pytest.mark.parametrize(("message", "expected"), HISTORY)
def test_messages_of_earlier_turns(client: Any, model: Any, message: Any, expected: Any) -> None:
    ask(client, messages=[*CHAT["messages"], message])
    assert model.calls[-1].messages[1] == expected


# --- what comes back ---------------------------------------------------------------------------


def test_the_whole_reply_has_calls_and_no_content(client: Any, model: Any) -> None:
    model.answer, model.parser = '(hm)[add|{"a": 1}][now|{}]', Marked
    body = ask(client, tools=TOOLS)
    choice = body["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    message = choice["message"]
    assert (message["content"], message["reasoning_content"]) == (None, "hm")
    ids = [call.pop("id") for call in message["tool_calls"]]
    assert all(identity.startswith("call_") for identity in ids)
    assert len(set(ids)) == 2
    assert message["tool_calls"] == [
        {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
        {"type": "function", "function": {"name": "now", "arguments": "{}"}},
    ]
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3


def test_content_stays_beside_calls(client: Any, model: Any) -> None:
    model.answer, model.parser = "Well, [now|{}]", Marked
    message = ask(client, tools=TOOLS)["choices"][0]["message"]
    assert message["content"] == "Well, "
    assert "reasoning_content" not in message


@pytest.mark.parametrize("n", [1, 3])
def test_the_streamed_reply_has_the_same(client: Any, model: Any, n: int) -> None:
    model.answer, model.parser = '(hm)Yes[add|{"a": 1}][now|{}]', Marked
    parts = chunks(client, tools=TOOLS, n=n, stream_options={"include_usage": True})
    assert parts[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3 * n
    assert all(part["usage"] is None for part in parts[:-1])
    assert all(
        len(one["delta"].get("tool_calls", ())) <= 1 for part in parts for one in part["choices"]
    )
    identities = set()
    for choice in range(n):
        first = next(p for p in parts if p["choices"] and p["choices"][0]["index"] == choice)
        assert first["choices"][0]["delta"]["role"] == "assistant"
        message = joined(parts, choice)
        assert message["content"] == "Yes"
        assert message["reasoning_content"] == "hm"
        assert message["finish_reason"] == "tool_calls"
        identities |= {call.pop("id") for call in message["calls"]}
        assert message["calls"] == [
            {"type": "function", "name": "add", "arguments": '{"a": 1}'},
            {"type": "function", "name": "now", "arguments": "{}"},
        ]
    assert len(identities) == 2 * n


def test_logprobs_are_those_of_the_content(client: Any, model: Any) -> None:
    model.answer, model.parser = "(h)Yes[now|{}]", Marked
    whole = ask(client, tools=TOOLS, logprobs=True)["choices"][0]["logprobs"]["content"]
    streamed = [
        entry
        for part in chunks(client, tools=TOOLS, logprobs=True)
        for entry in (part["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert streamed == whole


def test_a_function_call_in_the_older_shape(client: Any, model: Any) -> None:
    model.answer, model.parser = '[add|{"a": 1}]', Marked
    functions = [tool["function"] for tool in TOOLS]
    choice = ask(client, functions=functions)["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "add", "arguments": '{"a": 1}'}
    assert "tool_calls" not in choice["message"]
    parts = chunks(client, functions=functions)
    calls = [part["choices"][0]["delta"].get("function_call") for part in parts]
    given = [call for call in calls if call]
    assert given[0] == {"name": "add", "arguments": ""}
    assert "".join(call["arguments"] for call in given) == '{"a": 1}'
    assert parts[-1]["choices"][0]["finish_reason"] == "function_call"


def test_a_call_that_was_cut_off_has_no_right_end(client: Any, model: Any) -> None:
    model.answer, model.parser = '[add|{"a": 1}]', Marked
    choice = ask(client, tools=TOOLS, max_tokens=8)["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"a'


def test_the_fingerprint_names_the_program(client: Any, model: Any) -> None:
    assert ask(client)["system_fingerprint"] == "fp_abababababababab"
    assert {part["system_fingerprint"] for part in chunks(client)} == {"fp_abababababababab"}
