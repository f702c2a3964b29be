"""The routes under ``/api``: Ollama's dialect."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from scripted_parser import ScriptedParser, called, thought

from edge_llm.api.chat import ThinkingOptions
from edge_llm.errors import ProgramError
from edge_llm.parsed import Tool
from edge_llm.runner.guidance.grammar import Grammar

CHAT = "/api/chat"
GENERATE = "/api/generate"
USER = {"role": "user", "content": "hi"}
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "fake-model", "messages": [USER]},
    GENERATE: {"model": "fake-model", "prompt": "hi"},
}
BOTH = pytest.mark.parametrize("path", [CHAT, GENERATE])
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "the weather", "parameters": SCHEMA},
}
DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


def ask(client: Any, path: str = CHAT, **change: Any) -> dict[str, Any]:
    """A whole reply."""
    response = client.post(path, json=BODIES[path] | {"stream": False} | change)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    body: dict[str, Any] = response.json()
    return body


def stream(client: Any, path: str = CHAT, **change: Any) -> list[dict[str, Any]]:
    """The lines of a streamed reply, which is what these routes give unless told otherwise."""
    response = client.post(path, json=BODIES[path] | change)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.text.endswith("\n")
    return [json.loads(line) for line in response.text.splitlines()]


def said(line: dict[str, Any]) -> dict[str, Any]:
    """The part of a line that has the answer, with content under one name."""
    if "message" in line:
        assert line["message"]["role"] == "assistant"
        return {name: value for name, value in line["message"].items() if name != "role"}
    kept = {"response": "content", "thinking": "thinking"}
    return {new: line[old] for old, new in kept.items() if old in line}


def joined(lines: list[dict[str, Any]]) -> dict[str, Any]:
    parts = [said(line) for line in lines]
    return {
        "content": "".join(part["content"] for part in parts),
        "thinking": "".join(part.get("thinking", "") for part in parts),
        "calls": [
            (call["function"]["name"], call["function"]["arguments"])
            for part in parts
            for call in part.get("tool_calls", ())
        ],
    }


def call_of(client: Any, model: Any, path: str = CHAT, **change: Any) -> Any:
    """The `ChatCall` that a request makes."""
    ask(client, path, **change)
    return model.calls[-1]


def params_of(client: Any, model: Any, **options: Any) -> Any:
    ask(client, options=options)
    return model.requests[-1].params


def check(response: Any, status: int, *words: str) -> None:
    """That a reply is an error in Ollama's shape."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    assert response.headers["x-request-id"]
    for word in words:
        assert word in body["error"]


# --- replies -------------------------------------------------------------------------------------


@BOTH
def test_the_whole_reply(client: Any, path: str) -> None:
    body = ask(client, path)
    created = datetime.fromisoformat(body.pop("created_at"))
    assert created.tzinfo is not None
    answer = {"role": "assistant", "content": "Hello, world"}
    durations = {name: body.pop(name) for name in DURATIONS}
    assert body == {
        "model": "fake-model",
        **({"message": answer} if path == CHAT else {"response": "Hello, world"}),
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": len("user:hi\n"),
        "eval_count": 12,
    }
    assert durations == {
        "total_duration": 111_000_000,
        "load_duration": 0,
        "prompt_eval_duration": 10_000_000,
        "eval_duration": 100_000_000,
    }


@BOTH
def test_the_streamed_reply(client: Any, path: str) -> None:
    lines = stream(client, path)
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert joined(lines)["content"] == "Hello, world"
    assert said(lines[-1])["content"] == ""
    last, whole = lines[-1], ask(client, path)
    for name in ("done_reason", "prompt_eval_count", "eval_count", *DURATIONS):
        assert last[name] == whole[name]
        assert all(name not in line for line in lines[:-1])


ANSWERS = [
    "Hello",
    "",
    thought("let me see") + "so",
    thought("why") + called("weather", '{"city": "Bern"}'),
    "I look." + called("weather", '{"city": "Bern"}') + called("clock", ""),
]


@BOTH
@pytest.mark.parametrize("answer", ANSWERS)
def test_streamed_and_whole_replies_agree(client: Any, model: Any, path: str, answer: str) -> None:
    model.parser = ScriptedParser
    model.answer = answer
    assert joined(stream(client, path)) == joined([ask(client, path)])


def test_calls_are_told_whole(client: Any, model: Any) -> None:
    model.parser = ScriptedParser
    model.answer = "I look." + called("weather", '{"city": "Bern"}') + called("clock", "{}")
    lines = stream(client, tools=[TOOL])
    calls = [call for line in lines for call in said(line).get("tool_calls", ())]
    assert [call["function"] for call in calls] == [
        {"index": 0, "name": "weather", "arguments": {"city": "Bern"}},
        {"index": 1, "name": "clock", "arguments": {}},
    ]
    assert len({call["id"] for call in calls}) == 2
    assert "tool_calls" not in said(lines[-1])
    assert lines[-1]["done_reason"] == "stop"
    (whole,) = [said(ask(client, tools=[TOOL]))]
    assert [call["function"] for call in whole["tool_calls"]] == [c["function"] for c in calls]


def test_arguments_that_are_no_object_are_told_as_they_are(client: Any, model: Any) -> None:
    model.parser = ScriptedParser
    model.answer = called("weather", '{"city": "Be')
    (call,) = said(ask(client))["tool_calls"]
    assert call["function"]["arguments"] == {"INVALID_JSON": '{"city": "Be'}


@BOTH
def test_why_an_answer_ended(client: Any, path: str) -> None:
    body = ask(client, path, options={"num_predict": 5})
    assert (said(body)["content"], body["done_reason"], body["eval_count"]) == (
        "Hello",
        "length",
        5,
    )
    body = ask(client, path, options={"stop": [", "]})
    assert (said(body)["content"], body["done_reason"]) == ("Hello", "stop")
    assert stream(client, path, options={"num_predict": 5})[-1]["done_reason"] == "length"


@BOTH
def test_log_probabilities(client: Any, path: str) -> None:
    body = ask(client, path, logprobs=True, top_logprobs=2)
    assert len(body["logprobs"]) == 12
    first = body["logprobs"][0]
    assert (first["token"], first["logprob"], first["bytes"]) == ("H", -0.125, [72])
    assert len(first["top_logprobs"]) == 2
    lines = stream(client, path, logprobs=True, top_logprobs=2)
    assert [entry for line in lines for entry in line.get("logprobs", ())] == body["logprobs"]
    assert ask(client, path, logprobs=True)["logprobs"][0]["top_logprobs"] == []
    assert "logprobs" not in ask(client, path)


@BOTH
@pytest.mark.parametrize("streamed", [True, False, None])
def test_nothing_to_answer_is_a_wish_to_load(client: Any, path: str, streamed: bool | None) -> None:
    field = "messages" if path == CHAT else "prompt"
    for empty in ({}, {field: None}, {field: [] if path == CHAT else ""}):
        body = {"model": "fake-model", "keep_alive": "5m", "stream": streamed, **empty}
        loaded = client.post(path, json=body).json()
        assert (loaded["done"], loaded["done_reason"]) == (True, "load")
        assert said(loaded) == {"content": ""}


# --- requests ------------------------------------------------------------------------------------


def test_options_are_sampling_parameters(client: Any, model: Any) -> None:
    params = params_of(
        client,
        model,
        temperature=0.25,
        top_k=3,
        top_p=0.5,
        min_p=0.1,
        typical_p=0.9,
        repeat_penalty=1.5,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        seed=7,
        num_predict=9,
        stop=["x", ""],
        repeat_last_n=-1,
        num_ctx=512,
        num_gpu=99,
        use_mmap=True,
    )
    assert (params.temperature, params.top_k, params.top_p) == (0.25, 3, 0.5)
    assert (params.min_p, params.typical_p, params.repetition_penalty) == (0.1, 0.9, 1.5)
    assert (params.presence_penalty, params.frequency_penalty) == (0.5, -0.5)
    assert (params.seed, params.max_tokens, params.stop) == (7, 9, ("x",))


def test_options_that_ask_for_the_usual(client: Any, model: Any) -> None:
    params = params_of(client, model, num_predict=-1, seed=-1, stop=[], mirostat=0, tfs_z=1.0)
    assert (params.max_tokens, params.seed, params.stop) == (None, None, ())
    assert params_of(client, model).temperature == 0.5
    assert params_of(client, model, num_predict=-2).max_tokens is None
    assert params_of(client, model, repeat_last_n=0, repeat_penalty=1.5).repetition_penalty == 1
    assert params_of(client, model, repeat_last_n=64).repetition_penalty == 1


def test_a_context_above_the_servers_is_named(client: Any, make_client: Any) -> None:
    body = BODIES[CHAT] | {"options": {"num_ctx": 1024}}
    response = client.post(CHAT, json=body)
    assert response.status_code == 200
    assert response.headers["x-edge-llm-ignored"] == "options.num_ctx"
    check(make_client(strict=True).post(CHAT, json=body), 400, "'options.num_ctx'", "512")


def test_formats(client: Any, model: Any) -> None:
    for path in (CHAT, GENERATE):
        assert call_of(client, model, path, format="json").grammar == Grammar.json_object()
        assert call_of(client, model, path, format=SCHEMA).grammar == Grammar.json_schema(SCHEMA)
        assert call_of(client, model, path, format="").grammar is None
        assert call_of(client, model, path, format=None).grammar is None


@BOTH
@pytest.mark.parametrize(
    ("think", "expected"),
    [
        (None, ThinkingOptions()),
        (True, ThinkingOptions(enabled=True)),
        (False, ThinkingOptions(enabled=False)),
        ("high", ThinkingOptions(effort="high")),
    ],
)
def test_how_to_think(client: Any, model: Any, path: str, think: Any, expected: Any) -> None:
    assert call_of(client, model, path, think=think).thinking == expected


def test_a_prompt_is_a_chat_unless_it_is_raw(client: Any, model: Any) -> None:
    call = call_of(client, model, GENERATE, system="be brief", images=[], suffix="", context=[])
    assert call.messages == [{"role": "system", "content": "be brief"}, USER]
    body = ask(client, GENERATE, raw=True, prompt="a<special>b")
    assert model.requests[-1].prompt == [97, 256, 98]
    assert body["prompt_eval_count"] == 3
    assert len(model.calls) == 1


def test_a_raw_prompt_can_be_held_to_a_form(client: Any, model: Any) -> None:
    ask(client, GENERATE, raw=True, format=SCHEMA)
    assert model.grammars == [Grammar.json_schema(SCHEMA)]


def test_conversations(client: Any, model: Any) -> None:
    weather = {"name": "weather", "arguments": {"city": "Bern"}}
    clock = {"name": "clock", "arguments": {}}
    messages = [
        {"role": "system", "content": "be brief", "images": []},
        {"role": "user", "content": "the weather?"},
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [{"function": weather}, {"id": "mine", "function": clock}],
        },
        {"role": "tool", "content": "noon", "tool_name": "clock"},
        {"role": "tool", "content": "sunny"},
        {"role": "tool", "content": "lost", "tool_name": "other"},
    ]
    call = call_of(client, model, messages=messages, tools=[TOOL])
    assert call.tools == (Tool("weather", "the weather", SCHEMA),)
    assistant, noon, sunny, lost = call.messages[2:]
    assert assistant["reasoning_content"] == "hm"
    first, second = assistant["tool_calls"]
    assert json.loads(first["function"]["arguments"]) == {"city": "Bern"}
    assert second["id"] == "mine"
    assert noon == {"role": "tool", "content": "noon", "tool_call_id": "mine", "name": "clock"}
    assert (sunny["tool_call_id"], sunny["name"]) == (first["id"], "weather")
    assert lost["name"] == "other"
    assert not call.continue_final_message


def test_a_last_message_of_the_assistant_is_continued(client: Any, model: Any) -> None:
    call = call_of(client, model, messages=[USER, {"role": "assistant", "content": "Well"}])
    assert call.continue_final_message


def test_names_with_and_without_the_usual_tag(client: Any) -> None:
    for name in ("fake-model", "fake-model:latest", "fake-file:latest", None, ""):
        assert ask(client, model=name)["model"] == "fake-model"
    for name in ("fake-model:7b", "other:latest", "other"):
        check(client.post(CHAT, json=BODIES[CHAT] | {"model": name}), 404, "'fake-model'")


# --- errors --------------------------------------------------------------------------------------

FIELDS: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {"messages": 3}, "'messages'"),
    (CHAT, {"messages": [3]}, "'messages[0]'"),
    (CHAT, {"messages": [{"content": "x"}]}, "'messages[0].role'"),
    (CHAT, {"messages": [{"role": "robot", "content": "x"}]}, "'messages[0].role'"),
    (CHAT, {"messages": [USER | {"content": 3}]}, "'messages[0].content'"),
    (CHAT, {"messages": [USER | {"images": ["aGk="]}]}, "'messages[0].images' is not supported"),
    (
        CHAT,
        {"messages": [USER | {"tool_calls": [{"function": {"name": "x", "arguments": "{}"}}]}]},
        "'messages[0].tool_calls[0].function.arguments'",
    ),
    (CHAT, {"messages": [{"role": "user", "content": "reject me"}]}, "rejects"),
    (CHAT, {"tools": [{"type": "function"}]}, "'tools[0].function'"),
    (CHAT, {"tools": [TOOL, TOOL]}, "'tools[1].function.name'"),
    (
        CHAT,
        {"tools": [{"function": {"name": "x", "parameters": {"not": {}}}}]},
        "'tools[0].function.parameters': ",
    ),
    (GENERATE, {"prompt": 3}, "'prompt'"),
    (GENERATE, {"images": ["aGk="]}, "'images' is not supported"),
    (GENERATE, {"template": "{{ .Prompt }}"}, "'template' is not supported"),
    (GENERATE, {"suffix": "x"}, "'suffix' is not supported"),
    (GENERATE, {"context": [1, 2]}, "'context' is not supported"),
    (GENERATE, {"raw": True, "system": "x"}, "'system'"),
    (GENERATE, {"raw": True, "think": True}, "'think'"),
]
SHARED: list[tuple[dict[str, Any], str]] = [
    ({"stream": "yes"}, "'stream'"),
    ({"format": "xml"}, "'format'"),
    ({"format": 3}, "'format'"),
    ({"format": {"not": {}}}, "'format': "),
    ({"format": {"const": math.inf}}, "'format'"),
    ({"think": "much"}, "'think'"),
    ({"think": 1}, "'think'"),
    ({"logprobs": 1}, "'logprobs'"),
    ({"top_logprobs": 3}, "'top_logprobs'"),
    ({"logprobs": True, "top_logprobs": 21}, "'top_logprobs'"),
    ({"options": 3}, "'options'"),
    ({"options": {"temperature": "hot"}}, "'options.temperature'"),
    ({"options": {"temperature": math.nan}}, "'options.temperature'"),
    ({"options": {"temperature": 9}}, "'options.temperature'"),
    ({"options": {"top_p": 2}}, "'options.top_p'"),
    ({"options": {"num_predict": -3}}, "'options.num_predict': integer"),
    ({"options": {"num_predict": 1.5}}, "'options.num_predict'"),
    ({"options": {"num_predict": 5, "max_tokens": 5}}, "'options.num_predict'"),
    ({"options": {"max_tokens": 0}}, "'options.max_tokens'"),
    ({"options": {"num_ctx": 0}}, "'options.num_ctx': integer"),
    ({"options": {"stop": [3]}}, "'options.stop[0]'"),
    ({"options": {"mirostat": 2}}, "'options.mirostat' is not supported"),
    ({"options": {"tfs_z": 0.5}}, "'options.tfs_z' is not supported"),
    ({"options": {"repeat_last_n": 64, "repeat_penalty": 1.1}}, "'options.repeat_last_n'"),
    ({"options": {"repeat_penalty": 1.1, "repetition_penalty": 1.2}}, "repe"),
]


@pytest.mark.parametrize(
    ("path", "change", "words"),
    [*FIELDS, *((path, *row) for path in (CHAT, GENERATE) for row in SHARED)],
)
def test_fields(client: Any, model: Any, path: str, change: Any, words: str) -> None:
    data = json.dumps(BODIES[path] | change)
    response = client.post(path, content=data, headers={"content-type": "application/json"})
    check(response, 400, words)
    assert not model.requests


@BOTH
def test_other_errors(client: Any, make_client: Any, model: Any, service: Any, path: str) -> None:
    body = BODIES[path]
    check(client.get(path), 405)
    check(client.post("/api/pull", json={}), 404)
    check(client.post(path, content=b"{", headers={"content-type": "application/json"}), 400)
    check(client.post(path, content=b"{}"), 415)
    check(make_client(max_body=10).post(path, json=body), 413)
    check(make_client(api_key="k").post(path, json=body), 401)
    bearer = {"authorization": "Bearer k"}
    assert make_client(api_key="k").post(path, json=body, headers=bearer).status_code == 200
    check(client.post(path, json=body, headers={"origin": "https://evil.example"}), 403)
    long = {"messages": [{"role": "user", "content": "x" * 600}], "prompt": "x" * 600}
    long = {name: value for name, value in long.items() if name in body}
    check(client.post(path, json=body | long), 400, "maximum context length is 512 tokens")
    model.error = ProgramError("it broke")
    check(client.post(path, json=body | {"stream": False}), 500, "it broke")
    service.drain()
    check(client.post(path, json=body), 503)


@BOTH
def test_a_failure_in_a_stream(client: Any, model: Any, path: str) -> None:
    model.error = ProgramError("it broke")
    lines = stream(client, path)
    assert set(lines[-1]) == {"error"}
    assert "it broke" in lines[-1]["error"]


@BOTH
def test_a_queue_that_is_full(client: Any, service: Any, path: str) -> None:
    class Running:
        def abort(self) -> None: ...

    service.enter(Running(), 128, service.shelf.offers[0].model)
    check(client.post(path, json=BODIES[path]), 429)


@BOTH
def test_unknown_fields_are_named(client: Any, make_client: Any, path: str) -> None:
    body = BODIES[path] | {"zap": 1, "options": {"zip": 1}, "keep_alive": -1}
    response = client.post(path, json=body)
    assert response.headers["x-edge-llm-ignored"] == "zap, options.zip"
    check(make_client(strict=True).post(path, json=body), 400, "Unknown parameter: 'zap'")


# --- models --------------------------------------------------------------------------------------


def test_tags_and_processes(client: Any) -> None:
    (model,) = client.get("/api/tags").json()["models"]
    assert model == {
        "name": "fake-model:latest",
        "model": "fake-model:latest",
        "modified_at": "2023-11-14T22:13:20.500000Z",
        "size": 90_000_000,
        "digest": "ab" * 32,
        "details": {
            "parent_model": "",
            "format": "edge",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "135M",
            "quantization_level": "8da4w",
        },
    }
    (loaded,) = client.get("/api/ps").json()["models"]
    assert (loaded["name"], loaded["context_length"]) == ("fake-model:latest", 512)
    assert datetime.fromisoformat(loaded["expires_at"]).year == 9999


@pytest.mark.parametrize(
    ("count", "short"),
    [(999, "999"), (1_235_814_400, "1.24B"), (596_049_920, "596M"), (70_553_706_496, "70.6B")],
)
def test_numbers_of_parameters_are_short(client: Any, model: Any, count: int, short: str) -> None:
    model.about = replace(model.about, parameters=count)
    details = client.get("/api/tags").json()["models"][0]["details"]
    assert details["parameter_size"] == short


def test_version(client: Any) -> None:
    version = client.get("/api/version").json()
    assert all(part.isdecimal() for part in version["version"].split("."))


def test_show(client: Any, model: Any) -> None:
    body = client.post("/api/show", json={"model": "fake-model:latest"}).json()
    assert body["capabilities"] == ["completion"]
    assert body["template"] == "{{ messages }}"
    assert body["parameters"] == "temperature 0.5\ntop_k 7\nnum_ctx 512"
    assert body["model_info"]["general.architecture"] == "llama"
    assert body["model_info"]["llama.context_length"] == 512
    assert body["details"]["family"] == "llama"
    model.about = replace(model.about, tools=True, thinking=True, vectors=True, chat_template=None)
    body = client.post("/api/show", json={"name": "fake-model"}).json()
    assert body["capabilities"] == ["completion", "tools", "thinking", "embedding"]
    assert body["template"] == ""
    check(client.post("/api/show", json={"model": "other"}), 404)
    check(client.post("/api/show", json={"model": 3}), 400)


def test_models_while_loading(client: Any, service: Any) -> None:
    service.drain()
    check(client.get("/api/tags"), 503)
    assert client.get("/api/version").status_code == 200
