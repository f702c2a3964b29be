"""``/v1/messages`` and ``/v1/messages/count_tokens``: Anthropic's dialect."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from scripted_parser import ScriptedParser, called, thought

from edge_llm.api.chat import NamedTool, ThinkingOptions
from edge_llm.errors import ProgramError
from edge_llm.parsed import Tool
from edge_llm.runner.guidance.grammar import Grammar

PATH = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
BODY: dict[str, Any] = {
    "model": "fake-model",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hi"}],
}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "weather", "description": "the weather", "input_schema": SCHEMA}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Bern"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}


def ask(client: Any, **change: Any) -> dict[str, Any]:
    response = client.post(PATH, json=BODY | change)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def stream(client: Any, **change: Any) -> list[dict[str, Any]]:
    """The events of a streamed reply."""
    response = client.post(PATH, json=BODY | {"stream": True} | change)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    events = []
    for part in response.text.removesuffix("\n\n").split("\n\n"):
        name, data = part.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def blocks_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks that the events of a stream make, as a client puts them together."""
    blocks: list[dict[str, Any]] = []
    texts: list[str] = []
    for event in events:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append(event["content_block"])
            texts.append("")
        if event["type"] == "content_block_delta":
            assert event["index"] == len(blocks) - 1
            delta = dict(event["delta"])
            kind = delta.pop("type")
            ((name, value),) = delta.items()
            assert kind == {"partial_json": "input_json"}.get(name, name) + "_delta"
            if name == "partial_json":
                texts[-1] += value
            else:
                blocks[-1][name] += value
        if event["type"] == "content_block_stop" and texts[-1]:
            blocks[-1]["input"] = json.loads(texts[-1])
    return blocks


def call_of(client: Any, model: Any, **change: Any) -> Any:
    """The `ChatCall` that a request makes."""
    ask(client, **change)
    return model.calls[-1]


def check(response: Any, status: int, kind: str, *words: str) -> str:
    """The message of an error in Anthropic's shape."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert set(body["error"]) - {"details"} == {"type", "message"}
    assert body["error"]["type"] == kind
    assert body["request_id"] == response.headers["request-id"]
    for word in words:
        assert word in body["error"]["message"]
    message: str = body["error"]["message"]
    return message


# --- replies -------------------------------------------------------------------------------------


def test_the_whole_reply(client: Any, model: Any) -> None:
    response = client.post(PATH, json=BODY)
    body = response.json()
    assert body.pop("id").startswith("msg_")
    assert body == {
        "type": "message",
        "role": "assistant",
        "model": "fake-model",
        "content": [{"type": "text", "text": "Hello, world"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": len("user:hi\n") - 3,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 3,
            "output_tokens": 12,
            "output_tokens_details": {"thinking_tokens": 0},
        },
    }
    assert response.headers["request-id"].startswith("req_")
    params = model.requests[0].params
    assert (params.max_tokens, params.temperature, params.top_k) == (100, 0.5, 7)


def test_the_streamed_reply(client: Any) -> None:
    events = stream(client)
    kinds = [event["type"] for event in events if event["type"] != "content_block_delta"]
    assert kinds == [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    message = events[0]["message"]
    assert message["content"] == []
    assert (message["stop_reason"], message["stop_sequence"]) == (None, None)
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (8, 0)
    assert blocks_of(events) == [{"type": "text", "text": "Hello, world"}]
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[-2]["usage"] == ask(client)["usage"]


ANSWERS = [
    "Hello",
    "",
    thought("let me see") + "so",
    thought("why") + called("weather", '{"city": "Bern"}'),
    "I look." + called("weather", '{"city": "Bern"}') + called("weather", '{"city": "Basel"}'),
    called("weather", "{}") + "done",
    called("weather", ""),
    thought("a") + "b" + thought("c") + "d",
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_streamed_and_whole_replies_agree(client: Any, model: Any, answer: str) -> None:
    model.parser = ScriptedParser
    model.answer = answer
    whole, events = ask(client, tools=[TOOL]), stream(client, tools=[TOOL])
    streamed = blocks_of(events)
    for block in [*whole["content"], *streamed]:
        if block["type"] == "tool_use":
            assert block.pop("id").startswith("toolu_")
    assert streamed == whole["content"]
    assert events[-2]["delta"]["stop_reason"] == whole["stop_reason"]


def test_thinking_and_calls_are_blocks_of_their_own(client: Any, model: Any) -> None:
    model.parser = ScriptedParser
    model.answer = (
        thought("hm") + "I look." + called("weather", '{"city": "Bern"}') + called("clock", "{}")
    )
    body = ask(client, tools=[TOOL])
    thinking, text, weather, clock = body["content"]
    assert thinking.pop("signature")
    assert thinking == {"type": "thinking", "thinking": "hm"}
    assert text == {"type": "text", "text": "I look."}
    assert weather["id"] != clock["id"]
    assert (weather["name"], weather["input"]) == ("weather", {"city": "Bern"})
    assert (clock["name"], clock["input"]) == ("clock", {})
    assert body["stop_reason"] == "tool_use"
    assert body["usage"]["output_tokens_details"]["thinking_tokens"] > 0


def test_a_thinking_block_is_signed_before_it_stops(client: Any, model: Any) -> None:
    model.parser = ScriptedParser
    model.answer = thought("hm") + "so"
    events = stream(client)
    at = [event["delta"]["type"] if "delta" in event and event["type"] == "content_block_delta"
          else event["type"] for event in events]  # fmt: skip
    assert at[2:8] == [
        "content_block_start",
        "thinking_delta",
        "thinking_delta",
        "signature_delta",
        "content_block_stop",
        "content_block_start",
    ]


def test_thinking_can_be_kept_out_of_the_reply(client: Any, model: Any) -> None:
    model.parser = ScriptedParser
    model.answer = thought("hm") + "so"
    model.about = replace(model.about, thinking=True)
    thinking = {"type": "enabled", "budget_tokens": 10, "display": "omitted"}
    body = ask(client, thinking=thinking)
    assert body["content"][0]["thinking"] == ""
    assert body["content"][0]["signature"]
    assert blocks_of(stream(client, thinking=thinking)) == body["content"]


@pytest.mark.parametrize("arguments", ['{"city": "Be', "[1]", "no json", '{"a": NaN}'])
def test_arguments_that_are_no_object_are_told_as_they_are(
    client: Any, model: Any, arguments: str
) -> None:
    model.parser = ScriptedParser
    model.answer = called("weather", arguments)
    (block,) = ask(client, tools=[TOOL])["content"]
    assert block["input"] == {"INVALID_JSON": arguments}


# --- why an answer ends --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason", "sequence", "text"),
    [
        ({}, "end_turn", None, "Hello, world"),
        ({"max_tokens": 5}, "max_tokens", None, "Hello"),
        ({"stop_sequences": ["wor", ", w"]}, "stop_sequence", ", w", "Hello"),
        ({"stop_sequences": ["nowhere"]}, "end_turn", None, "Hello, world"),
        ({"stop_sequences": []}, "end_turn", None, "Hello, world"),
    ],
)
def test_stop_reasons(
    client: Any, change: Any, reason: str, sequence: str | None, text: str
) -> None:
    body, events = ask(client, **change), stream(client, **change)
    assert (body["stop_reason"], body["stop_sequence"]) == (reason, sequence)
    assert events[-2]["delta"] == {"stop_reason": reason, "stop_sequence": sequence}
    assert body["content"][0]["text"] == blocks_of(events)[0]["text"] == text


def test_a_call_that_is_cut_short_is_no_reason(client: Any, model: Any) -> None:
    model.parser = ScriptedParser
    model.answer = called("weather", '{"city": "Bern"}')
    assert ask(client, tools=[TOOL], max_tokens=12)["stop_reason"] == "max_tokens"


# --- conversations -------------------------------------------------------------------------------


def test_the_system_prompt_is_a_text_or_blocks(client: Any, model: Any) -> None:
    call = call_of(client, model, system="be brief")
    assert call.messages[0] == {"role": "system", "content": "be brief"}
    marked = {"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral"}}
    call = call_of(client, model, system=[{"type": "text", "text": "be brief"}, marked])
    assert call.messages[0] == {"role": "system", "content": "be brief\nbe kind"}
    assert call_of(client, model, system=[]).messages[0]["role"] == "user"


def test_turns_of_one_role_that_follow_each_other_are_one(client: Any, model: Any) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c"},
        {"role": "assistant", "content": "d"},
        {"role": "system", "content": "e"},
        {"role": "user", "content": "f"},
    ]
    assert call_of(client, model, messages=messages).messages == [
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": "cd"},
        {"role": "system", "content": "e"},
        {"role": "user", "content": "f"},
    ]


def test_calls_and_what_they_gave(client: Any, model: Any) -> None:
    failed = {"type": "tool_result", "tool_use_id": "toolu_2", "is_error": True}
    messages = [
        {"role": "user", "content": "the weather?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "text", "text": "I look."},
                CALL,
                CALL | {"id": "toolu_2", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                RESULT
                | {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                failed | {"content": "no such place"},
                {"type": "text", "text": "and now?"},
            ],
        },
    ]
    call = call_of(client, model, messages=messages, tools=[TOOL])
    assistant, first, second, user = call.messages[1:]
    assert assistant["content"] == "I look."
    assert assistant["reasoning_content"] == "hm"
    assert [one["id"] for one in assistant["tool_calls"]] == ["toolu_1", "toolu_2"]
    function = assistant["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("weather", {"city": "Bern"})
    assert first == {
        "role": "tool",
        "tool_call_id": "toolu_1",
        "name": "weather",
        "content": "a\nb",
    }
    assert second["content"] == "Error: no such place"
    assert user == {"role": "user", "content": "and now?"}


def test_calls_without_text_and_results_without_content(client: Any, model: Any) -> None:
    messages = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [CALL]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "elsewhere"}]},
    ]
    _, assistant, result = call_of(client, model, messages=messages).messages
    assert assistant["content"] is None
    assert result == {"role": "tool", "tool_call_id": "elsewhere", "content": ""}


def test_a_last_message_of_the_assistant_is_continued(client: Any, model: Any) -> None:
    begun = [*BODY["messages"], {"role": "assistant", "content": "Well"}]
    call = call_of(client, model, messages=begun)
    assert call.continue_final_message
    assert call.messages[-1] == {"role": "assistant", "content": "Well"}
    call = call_of(
        client, model, messages=[*BODY["messages"], {"role": "assistant", "content": ""}]
    )
    assert not call.continue_final_message
    assert call.messages[-1]["role"] == "user"


# --- tools ---------------------------------------------------------------------------------------


def test_tools_and_which_to_call(client: Any, model: Any) -> None:
    custom = TOOL | {"name": "other", "type": "custom", "cache_control": {"type": "ephemeral"}}
    call = call_of(client, model, tools=[TOOL, custom])
    assert call.tools == (
        Tool("weather", "the weather", SCHEMA),
        Tool("other", "the weather", SCHEMA),
    )
    assert (call.tool_choice, call.parallel_tool_calls) == ("auto", True)
    choices = {
        "auto": "auto",
        "any": "required",
        "none": "none",
    }
    for kind, expected in choices.items():
        call = call_of(client, model, tools=[TOOL], tool_choice={"type": kind})
        assert call.tool_choice == expected
    choice = {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}
    call = call_of(client, model, tools=[TOOL], tool_choice=choice)
    assert call.tool_choice == NamedTool("weather")
    assert not call.parallel_tool_calls


@pytest.mark.parametrize(
    "change",
    [
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {"output_format": {"type": "json_schema", "schema": SCHEMA}},
    ],
)
def test_an_answer_held_to_a_schema(client: Any, model: Any, change: Any) -> None:
    assert call_of(client, model, **change).grammar == Grammar.json_schema(SCHEMA)


# --- thinking ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "switch", "expected"),
    [
        ({}, True, ThinkingOptions(enabled=False)),
        ({}, False, ThinkingOptions()),
        ({"thinking": {"type": "disabled"}}, False, ThinkingOptions(enabled=False)),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 50}},
            True,
            ThinkingOptions(enabled=True, budget=50),
        ),
        ({"thinking": {"type": "adaptive"}}, True, ThinkingOptions()),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}},
            True,
            ThinkingOptions(effort="high"),
        ),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}},
            True,
            ThinkingOptions(),
        ),
        ({"output_config": {"effort": "high"}}, True, ThinkingOptions(enabled=False)),
    ],
)
def test_how_to_think(
    client: Any, model: Any, change: Any, switch: bool, expected: ThinkingOptions
) -> None:
    model.about = replace(model.about, thinking_switch=switch, efforts=("low", "high"))
    assert call_of(client, model, **change).thinking == expected


# --- errors --------------------------------------------------------------------------------------

INVALID = "invalid_request_error"
USER = BODY["messages"][0]
FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "'max_tokens'"),
    ({"max_tokens": 0}, "'max_tokens'"),
    ({"max_tokens": 1.5}, "'max_tokens'"),
    ({"max_tokens": "many"}, "'max_tokens'"),
    ({"temperature": 1.5}, "'temperature'"),
    ({"temperature": -0.1}, "'temperature'"),
    ({"temperature": math.nan}, "'temperature'"),
    ({"top_p": 1.1}, "'top_p'"),
    ({"top_k": -1}, "'top_k'"),
    ({"stream": "yes"}, "'stream'"),
    ({"stop_sequences": "x"}, "'stop_sequences'"),
    ({"stop_sequences": [""]}, "'stop_sequences[0]'"),
    ({"stop_sequences": ["x"] * 65}, "'stop_sequences'"),
    ({"system": 3}, "'system'"),
    ({"system": [{"type": "image"}]}, "'system[0].type'"),
    ({"messages": None}, "'messages'"),
    ({"messages": []}, "'messages'"),
    ({"messages": [3]}, "'messages[0]'"),
    ({"messages": [{"role": "user"}]}, "'messages[0].content'"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "'messages[0].role'"),
    ({"messages": [USER | {"content": [3]}]}, "'messages[0].content[0]'"),
    ({"messages": [USER | {"content": [{}]}]}, "'messages[0].content[0].type'"),
    (
        {"messages": [USER | {"content": [{"type": "text"}]}]},
        "'messages[0].content[0].text'",
    ),
    (
        {"messages": [USER | {"content": [{"type": "image", "source": {}}]}]},
        "'messages[0].content[0].type': 'image' is not supported",
    ),
    (
        {"messages": [USER | {"content": [{"type": "server_tool_use"}]}]},
        "'server_tool_use' is not supported",
    ),
    (
        {"messages": [USER | {"content": [CALL]}]},
        "type 'tool_use' has no place in a message of role 'user'",
    ),
    (
        {"messages": [USER, {"role": "assistant", "content": [RESULT]}, USER]},
        "'messages[1].content[0].type': a block of type 'tool_result' has no place",
    ),
    (
        {"messages": [USER | {"content": [RESULT | {"content": [{"type": "image"}]}]}]},
        "'messages[0].content[0].content[0].type': 'image' is not supported",
    ),
    (
        {"messages": [USER | {"content": [CALL | {"input": {"a": [math.inf]}}]}]},
        "'messages[0].content[0].input'",
    ),
    ({"messages": [USER, {"role": "assistant", "content": [CALL]}]}, "'messages'"),
    ({"messages": [{"role": "assistant", "content": ""}]}, "'messages'"),
    ({"messages": [{"role": "user", "content": "reject me"}]}, "rejects"),
    ({"tools": [{"name": "x"}]}, "'tools[0].input_schema'"),
    ({"tools": [TOOL | {"name": ""}]}, "'tools[0].name'"),
    ({"tools": [TOOL | {"input_schema": 3}]}, "'tools[0].input_schema'"),
    ({"tools": [TOOL | {"input_schema": {"not": {}}}]}, "'tools[0].input_schema': "),
    ({"tools": [TOOL, TOOL]}, "'tools[1].name'"),
    (
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        "'tools[0].type': tools of type 'web_search' are not supported",
    ),
    (
        {"tools": [{"type": "bash_20250124", "name": "bash"}]},
        "tools of type 'bash' are not supported",
    ),
    ({"tools": [{"type": "zap", "name": "zap"}]}, "'tools[0].type'"),
    ({"tools": [TOOL | {"defer_loading": True}]}, "'tools[0].defer_loading'"),
    ({"tool_choice": {"type": "any"}}, "'tool_choice'"),
    ({"tools": [TOOL], "tool_choice": "auto"}, "'tool_choice'"),
    ({"tools": [TOOL], "tool_choice": {"type": "some"}}, "'tool_choice.type'"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "'tool_choice.name'"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}},
        "'tool_choice.name'",
    ),
    ({"thinking": {"type": "enabled"}}, "'thinking.budget_tokens'"),
    ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "'thinking.budget_tokens': integer"),
    ({"thinking": {"type": "enabled", "budget_tokens": 100}}, "'max_tokens'"),
    ({"thinking": {"type": "between_tools"}}, "'thinking.type'"),
    ({"output_config": {"effort": "huge"}}, "'output_config.effort'"),
    (
        {"output_config": {"format": {"type": "json_schema", "schema": {"not": {}}}}},
        "not",
    ),
    ({"output_config": {"format": {"type": "json_schema"}}}, "'output_config.format.schema'"),
    ({"container": "c"}, "'container' is not supported"),
    ({"mcp_servers": [{}]}, "'mcp_servers' is not supported"),
    ({"context_management": {"edits": [{}]}}, "'context_management' is not supported"),
]


@pytest.mark.parametrize(("change", "words"), FIELDS)
def test_fields(client: Any, model: Any, change: Any, words: str) -> None:
    data = json.dumps(BODY | change)
    headers = {"content-type": "application/json"}
    check(client.post(PATH, content=data, headers=headers), 400, INVALID, words)
    assert not model.requests


@pytest.mark.parametrize("field", ["messages", "max_tokens"])
def test_missing_fields(client: Any, field: str) -> None:
    body = {name: value for name, value in BODY.items() if name != field}
    check(client.post(PATH, json=body), 400, INVALID, "Missing required parameter", f"'{field}'")


def test_a_missing_model_is_the_served_one(client: Any) -> None:
    body = {name: value for name, value in BODY.items() if name != "model"}
    assert client.post(PATH, json=body).json()["model"] == "fake-model"
    assert client.post(PATH, json=body | {"model": "fake-file"}).json()["model"] == "fake-model"


def test_other_errors(client: Any, make_client: Any, model: Any, service: Any) -> None:
    check(client.post(PATH, json=BODY | {"model": "claude"}), 404, "not_found_error")
    check(client.post("/v1/messages/batches", json={}), 404, "not_found_error")
    check(client.get(PATH), 405, INVALID)
    check(
        client.post(PATH, content=b"{", headers={"content-type": "application/json"}), 400, INVALID
    )
    check(client.post(PATH, content=b"{}"), 415, INVALID)
    check(make_client(max_body=10).post(PATH, json=BODY), 413, "request_too_large")
    check(make_client(api_key="k").post(PATH, json=BODY), 401, "authentication_error")
    evil = {"origin": "https://evil.example"}
    check(client.post(PATH, json=BODY, headers=evil), 403, "permission_error")
    long = BODY | {"messages": [{"role": "user", "content": "x" * 600}]}
    check(client.post(PATH, json=long), 400, INVALID, "maximum context length is 512 tokens")
    broken = BODY | {"messages": [{"role": "user", "content": "break"}]}
    check(client.post(PATH, json=broken), 500, "api_error")
    service.drain()
    check(client.post(PATH, json=BODY), 503, "overloaded_error")


def test_errors_with_details(client: Any) -> None:
    """Clients that would have the server hold the conversation go on without, if told so."""
    response = client.post(PATH, json=BODY | {"thread": {"type": "create"}})
    check(response, 400, INVALID, "'thread' is not supported")
    details = response.json()["error"]["details"]
    assert details == {"error_code": "thread_unsupported_request"}
    long = BODY | {"messages": [{"role": "user", "content": "x" * 600}]}
    details = client.post(PATH, json=long).json()["error"]["details"]
    assert details == {"n_ctx": 512, "n_prompt_tokens": 606}


def test_a_queue_that_is_full(client: Any, service: Any) -> None:
    class Running:
        def abort(self) -> None: ...

    service.enter(Running(), 128, service.shelf.offers[0].model)
    for path in (PATH, COUNT):
        response = client.post(path, json=BODY)
        check(response, 429, "rate_limit_error")
        assert response.headers["retry-after"]


def test_a_failure_in_a_stream(client: Any, model: Any) -> None:
    model.error = ProgramError("it broke")
    response = client.post(PATH, json=BODY | {"stream": True})
    last = response.text.removesuffix("\n\n").split("\n\n")[-1]
    name, data = last.split("\n")
    assert name == "event: error"
    error = json.loads(data.removeprefix("data: "))
    assert error["type"] == "error"
    assert error["error"]["type"] == "api_error"
    assert error["request_id"] == response.headers["request-id"]
    check(client.post(PATH, json=BODY), 500, "api_error", "it broke")


def test_what_changes_nothing_is_not_named_and_what_is_unknown_is(
    client: Any, make_client: Any
) -> None:
    neutral = {
        "metadata": {"user_id": "me"},
        "service_tier": "auto",
        "cache_control": {"type": "ephemeral"},
        "context_management": {"edits": []},
        "mcp_servers": [],
        "tools": [TOOL | {"strict": True, "eager_input_streaming": True}],
    }
    response = client.post(PATH, json=BODY | neutral)
    assert response.status_code == 200
    assert "x-edge-llm-ignored" not in response.headers
    unknown = {"messages": [USER | {"content": [{"type": "text", "text": "hi", "mood": 1}]}]}
    response = client.post(PATH, json=BODY | unknown | {"zap": 1})
    assert response.headers["x-edge-llm-ignored"] == "zap, messages[0].content[0].mood"
    strict = make_client(strict=True)
    check(strict.post(PATH, json=BODY | {"zap": 1}), 400, INVALID, "Unknown parameter: 'zap'")
    assert strict.post(PATH, json=BODY | neutral).status_code == 200


# --- counting ------------------------------------------------------------------------------------


def test_count_tokens(client: Any, model: Any) -> None:
    body = {"messages": BODY["messages"], "system": "be brief", "tools": [TOOL]}
    response = client.post(COUNT, json=body)
    assert response.status_code == 200
    assert response.json() == {"input_tokens": len("system:be brief\nuser:hi\n")}
    assert response.headers["request-id"]
    assert not model.requests
    assert model.calls[-1].tools


def test_errors_of_counting(client: Any) -> None:
    check(client.post(COUNT, json={}), 400, INVALID, "'messages'")
    nothing = [{"role": "user", "content": []}]
    check(client.post(COUNT, json={"messages": nothing}), 400, INVALID, "says something")
    check(client.post(COUNT, json={"messages": [USER], "model": "x"}), 404, "not_found_error")
    rejected = [{"role": "user", "content": "reject me"}]
    check(client.post(COUNT, json={"messages": rejected}), 400, INVALID)
    broken = [{"role": "user", "content": "break"}]
    check(client.post(COUNT, json={"messages": broken}), 500, "api_error")
