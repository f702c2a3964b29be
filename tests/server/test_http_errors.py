"""Every row of the error table, as a client sees it."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import pytest

from edge_llm.runner.sampling import NAMES, PARAMETERS
from edge_llm.server.errors import ApiError
from edge_llm.server.openai.schemas import ChatRequest
from edge_llm.server.requests.validation import validate

MESSAGES = [{"role": "user", "content": "hi"}]
CHAT = {"model": "fake-model", "messages": MESSAGES}
LEGACY = {"model": "fake-model", "prompt": "hi"}
JSON = {"content-type": "application/json"}


def check(
    response: Any, status: int, kind: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The error object, after the checks that hold for all of them."""
    assert response.status_code == status, response.text
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    error: dict[str, Any] = body["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    assert isinstance(error["message"], str)
    assert error["message"]
    assert (error["type"], error["param"], error["code"]) == (kind, param, code)
    return error


def post(client: Any, path: str, body: Any) -> Any:
    # by hand: httpx refuses NaN
    return client.post(path, content=json.dumps(body), headers=JSON)


INVALID = "invalid_request_error"

BODIES: list[bytes] = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff{}",
    b'"text"',
    b"1" * 5000,
    b'{"model": ' + b"[" * 100_000,
    b'{"prompt": "x", "user": [' + b"[]," * 600_000 + b"1]}",
    json.dumps({**CHAT, "user": [[[[]]]] and json.loads("[" * 70 + "]" * 70)}).encode(),
]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_bodies_that_are_no_json_objects(client: Any, path: str, body: bytes) -> None:
    check(client.post(path, content=body, headers=JSON), 400, INVALID)


def tool(name: str, parameters: Any = None) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(name: str) -> dict[str, Any]:
    tools = {"mode": "auto", "tools": [named(name)]}
    return {"type": "allowed_tools", "allowed_tools": tools}


def schema(value: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}


MISSING, VALUE = "missing_required_parameter", "invalid_value"
NAMED = "tool_choice.function"
ALLOWED = "tool_choice.allowed_tools.tools[0].function"
FIELDS: list[tuple[dict[str, Any], str, str | None]] = [
    ({"model": 7}, "model", "invalid_type"),
    ({"messages": "hi"}, "messages", "invalid_type"),
    ({"messages": []}, "messages", "empty_array"),
    ({"messages": ["hi"]}, "messages[0]", "invalid_type"),
    ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
    ({"messages": [{"role": "boss", "content": ""}]}, "messages[0].role", "invalid_value"),
    ({"messages": [{"role": "tool"}]}, "messages[0].content", "missing_required_parameter"),
    ({"messages": [{"role": "assistant"}]}, "messages[0].content", "missing_required_parameter"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "invalid_type"),
    ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content", "invalid_type"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0].type",
        "unsupported_value",
    ),
    ({"messages": [{"role": "user", "content": ["hi"]}]}, "messages[0].content[0]", "invalid_type"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]},
        "messages[0].content[0].text",
        "invalid_type",
    ),
    (
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]},
        "messages[0].tool_calls[0].function",
        "missing_required_parameter",
    ),
    (
        {
            "messages": [
                {"role": "user", "content": "", "tool_calls": [{"function": {"name": "f"}}]}
            ]
        },
        "messages[0].tool_calls",
        None,
    ),
    ({"temperature": "hot"}, "temperature", "invalid_type"),
    ({"temperature": True}, "temperature", "invalid_type"),
    ({"temperature": math.nan}, "temperature", "invalid_type"),
    ({"temperature": math.inf}, "temperature", "invalid_type"),
    ({"temperature": 10**400}, "temperature", "invalid_type"),
    ({"temperature": -0.1}, "temperature", "decimal_below_min_value"),
    ({"temperature": 2.1}, "temperature", "decimal_above_max_value"),
    ({"temperature": 3}, "temperature", "decimal_above_max_value"),
    ({"top_p": -0.1}, "top_p", "decimal_below_min_value"),
    ({"top_p": 1.1}, "top_p", "decimal_above_max_value"),
    ({"n": 0}, "n", "integer_below_min_value"),
    ({"n": 129}, "n", "integer_above_max_value"),
    ({"n": 1.5}, "n", "invalid_type"),
    ({"n": "1"}, "n", "invalid_type"),
    ({"n": 10**30}, "n", "integer_above_max_value"),
    ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
    ({"n_predict": 0}, "n_predict", "integer_below_min_value"),
    ({"max_tokens": 3.5}, "max_tokens", "invalid_type"),
    ({"max_tokens": 2**31}, "max_tokens", "integer_above_max_value"),
    ({"seed": 2**64}, "seed", "integer_above_max_value"),
    ({"presence_penalty": 2.5}, "presence_penalty", "decimal_above_max_value"),
    ({"frequency_penalty": -2.5}, "frequency_penalty", "decimal_below_min_value"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "array_above_max_length"),
    ({"stop": ["a", ""]}, "stop[1]", "empty_string"),
    ({"stop": [7]}, "stop[0]", "invalid_type"),
    ({"stop": 7}, "stop", "invalid_type"),
    ({"stop": "x" * 2000}, "stop[0]", "string_above_max_length"),
    ({"logit_bias": {"1": 101}}, "logit_bias", "decimal_above_max_value"),
    ({"logit_bias": {"1": -101}}, "logit_bias", "decimal_below_min_value"),
    ({"logit_bias": {"1": math.nan}}, "logit_bias", "invalid_type"),
    ({"logit_bias": {"a": 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"-1": 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": 7}, "logit_bias", "invalid_type"),
    ({"logit_bias": [[1]]}, "logit_bias", "invalid_type"),
    ({"logit_bias": [["a", 1]]}, "logit_bias", "invalid_type"),
    ({"logit_bias": [[1, 101]]}, "logit_bias", "decimal_above_max_value"),
    ({"stream": "yes"}, "stream", "invalid_type"),
    ({"stream": True, "stream_options": 1}, "stream_options", "invalid_type"),
    (
        {"stream": True, "stream_options": {"include_usage": 1}},
        "stream_options.include_usage",
        "invalid_type",
    ),
    # extensions
    ({"top_k": -2}, "top_k", "integer_below_min_value"),
    ({"min_p": 1.5}, "min_p", "decimal_above_max_value"),
    ({"repetition_penalty": 0}, "repetition_penalty", "decimal_below_min_value"),
    ({"repetition_penalty": 11}, "repetition_penalty", "decimal_above_max_value"),
    ({"ignore_eos": 1}, "ignore_eos", "invalid_type"),
    # tools
    ({"tools": {}}, "tools", "invalid_type"),
    ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
    ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].type", "unsupported_value"),
    ({"tools": [tool("")]}, "tools[0].function.name", "empty_string"),
    ({"tools": [tool("a b")]}, "tools[0].function.name", "invalid_value"),
    ({"tools": [tool("\ud800")]}, "tools[0].function.name", "invalid_value"),
    ({"tools": [tool("f" * 65)]}, "tools[0].function.name", "string_above_max_length"),
    ({"tools": [tool("f"), tool("f")]}, "tools[1].function.name", "invalid_value"),
    ({"tools": [tool("f", [])]}, "tools[0].function.parameters", "invalid_type"),
    ({"tools": [tool("f", {"a": math.nan})]}, "tools", "invalid_type"),
    ({"tools": [tool("f", {"not": {}})]}, "tools[0]", "unsupported_value"),
    ({"tools": [tool("f")], "tool_choice": 7}, "tool_choice", "invalid_type"),
    ({"tools": [tool("f")], "tool_choice": "any"}, "tool_choice", "invalid_value"),
    ({"tool_choice": "required"}, "tool_choice", None),
    ({"tools": [tool("f")], "tool_choice": named("g")}, f"{NAMED}.name", "invalid_value"),
    ({"tools": [tool("f")], "tool_choice": {"type": "function"}}, NAMED, MISSING),
    ({"tools": [tool("f")], "tool_choice": allowed("g")}, f"{ALLOWED}.name", "invalid_value"),
    ({"parallel_tool_calls": 1}, "parallel_tool_calls", "invalid_type"),
    ({"functions": [{"name": "f"}] * 2}, "functions[1].name", "invalid_value"),
    ({"functions": [{"name": "f"}], "function_call": {"name": "g"}}, "function_call.name", VALUE),
    ({"functions": [{"name": "f"}], "function_call": "required"}, "function_call", VALUE),
    ({"functions": [{"name": "f"}], "tools": [tool("f")]}, "tools", None),
    # the form of an answer
    ({"response_format": "json"}, "response_format", "invalid_type"),
    ({"response_format": {}}, "response_format.type", MISSING),
    ({"response_format": {"type": "xml"}}, "response_format.type", "unsupported_value"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", MISSING),
    ({"response_format": schema(None)}, "response_format.json_schema.schema", "invalid_type"),
    ({"response_format": schema({"not": {}})}, "response_format", "unsupported_value"),
    ({"response_format": {"type": "json_object"}, "regex": "a"}, "regex", None),
    ({"guided_json": {"not": {}}}, "guided_json", "unsupported_value"),
    ({"guided_json": "[]"}, "guided_json", "invalid_type"),
    ({"guided_json": "{"}, "guided_json", "invalid_type"),
    ({"json_schema": 7}, "json_schema", "invalid_type"),
    ({"regex": 7}, "regex", "invalid_type"),
    ({"choice": "a"}, "choice", "invalid_type"),
    ({"choice": [1]}, "choice[0]", "invalid_type"),
    ({"grammar": ["a"]}, "grammar", "invalid_type"),
    ({"structured_outputs": {"json": {"not": {}}}}, "structured_outputs.json", "unsupported_value"),
    (
        {"structured_outputs": {"regex": "a", "choice": ["a"]}},
        "structured_outputs.choice",
        None,
    ),
    (
        {"structured_outputs": {"structural_tag": "x"}},
        "structured_outputs.structural_tag",
        "unsupported_parameter",
    ),
    # thinking
    ({"reasoning_effort": "huge"}, "reasoning_effort", "invalid_value"),
    ({"reasoning_effort": 3}, "reasoning_effort", "invalid_value"),
    ({"enable_thinking": "no"}, "enable_thinking", "invalid_type"),
    ({"thinking_budget": -1}, "thinking_budget", "integer_below_min_value"),
    ({"thinking_budget": 1.5}, "thinking_budget", "invalid_type"),
    (
        {"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}},
        "enable_thinking",
        None,
    ),
    # the template
    ({"chat_template_kwargs": {"a": math.nan}}, "chat_template_kwargs", "invalid_type"),
    ({"chat_template_kwargs": {"a": [{"b": -math.inf}]}}, "chat_template_kwargs", "invalid_type"),
    ({"continue_final_message": 1}, "continue_final_message", "invalid_type"),
    (
        {"continue_final_message": True, "add_generation_prompt": True},
        "add_generation_prompt",
        None,
    ),
    # choices that would be drawn and thrown away
    ({"best_of": 2}, "best_of", "unsupported_value"),
]


@pytest.mark.parametrize(("change", "param", "code"), FIELDS)
def test_fields_of_chat(client: Any, model: Any, change: Any, param: str, code: str | None) -> None:
    error = check(post(client, "/v1/chat/completions", CHAT | change), 400, INVALID, param, code)
    assert f"'{param}'" in error["message"]
    assert not model.requests


@pytest.mark.parametrize("field", ["messages"])
def test_missing_fields_of_chat(client: Any, field: str) -> None:
    body = {name: value for name, value in CHAT.items() if name != field}
    response = post(client, "/v1/chat/completions", body)
    check(response, 400, INVALID, field, "missing_required_parameter")


CHAT_ONLY: list[tuple[dict[str, Any], str, str | None]] = [
    ({"max_completion_tokens": 0}, "max_completion_tokens", "integer_below_min_value"),
    ({"logprobs": 1}, "logprobs", "invalid_type"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "integer_above_max_value"),
    ({"logprobs": True, "top_logprobs": -1}, "top_logprobs", "integer_below_min_value"),
    ({"top_logprobs": 2}, "top_logprobs", None),
    ({"logprobs": False, "top_logprobs": 0}, "top_logprobs", None),
    ({"max_tokens": 3, "max_completion_tokens": 3}, "max_tokens", None),
    ({"stream_options": {"include_usage": True}}, "stream_options", None),
    ({"logit_bias": {"300": 1}}, "logit_bias", None),
    ({"messages": [{"role": "user", "content": "reject me"}]}, "messages", None),
]


@pytest.mark.parametrize(("change", "param", "code"), CHAT_ONLY)
def test_combinations_of_chat(client: Any, change: Any, param: str, code: str | None) -> None:
    check(post(client, "/v1/chat/completions", CHAT | change), 400, INVALID, param, code)


LEGACY_FIELDS: list[tuple[dict[str, Any], str, str | None]] = [
    ({"prompt": None}, "prompt", "invalid_type"),
    ({"prompt": []}, "prompt", "empty_array"),
    ({"prompt": 3}, "prompt", "invalid_type"),
    ({"prompt": ["a", 3]}, "prompt", "invalid_type"),
    ({"prompt": [1, True]}, "prompt", "invalid_type"),
    ({"prompt": [[1], "a", 3]}, "prompt", "invalid_type"),
    ({"prompt": ""}, "prompt", None),
    ({"prompt": [999]}, "prompt", None),
    ({"prompt": ["a"] * 129}, "n", "integer_above_max_value"),
    ({"prompt": ["a", "b"], "n": 65}, "n", "integer_above_max_value"),
    ({"logprobs": 6}, "logprobs", "integer_above_max_value"),
    ({"logprobs": True}, "logprobs", "invalid_type"),
    ({"echo": 1}, "echo", "invalid_type"),
    ({"max_tokens": -2, "echo": True}, "max_tokens", "integer_below_min_value"),
    ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
    ({"best_of": 2}, "best_of", "unsupported_value"),
    ({"response_format": schema({"not": {}})}, "response_format", "unsupported_value"),
    ({"temperature": 5}, "temperature", "decimal_above_max_value"),
    ({"stream_options": {}}, "stream_options", None),
]


@pytest.mark.parametrize(("change", "param", "code"), LEGACY_FIELDS)
def test_fields_of_completions(client: Any, change: Any, param: str, code: str | None) -> None:
    check(post(client, "/v1/completions", LEGACY | change), 400, INVALID, param, code)


@pytest.mark.parametrize("field", ["prompt"])
def test_missing_fields_of_completions(client: Any, field: str) -> None:
    body = {name: value for name, value in LEGACY.items() if name != field}
    response = post(client, "/v1/completions", body)
    check(response, 400, INVALID, field, "missing_required_parameter")


@pytest.mark.parametrize("name", [n for n in NAMES if PARAMETERS[NAMES[n]].kind == "number"])
def test_every_number_has_the_range_of_the_table(client: Any, name: str) -> None:
    parameter = PARAMETERS[NAMES[name]]
    for value, side in ((parameter.low - 0.5, "below_min"), (parameter.high + 0.5, "above_max")):
        response = post(client, "/v1/chat/completions", CHAT | {name: value})
        check(response, 400, INVALID, name, f"decimal_{side}_value")


UNKNOWN = {
    "frobnicate": 1,
    "x\r\ny: z": 2,
    "user": "me",
    "messages": [{"role": "user", "content": "hi", "mood": "good", "refusal": None}],
}


HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"messages": [0] * 30_000}, "messages[0]"),
    ({"messages": [{"role": "user", "content": [0] * 10_000}] * 3}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": "x"}] * 100_000}, "messages"),
    ({"messages": [{"role": "user", "content": [{}] * 10_000}] * 10}, "messages"),
    ({"logit_bias": dict.fromkeys(map(str, range(100_000)), "x")}, "logit_bias"),
]


@pytest.mark.parametrize(("change", "param"), HOSTILE)
def test_only_the_first_of_many_errors_costs_anything(change: Any, param: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ApiError) as info:
            validate(ChatRequest, CHAT | change, strict=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert info.value.param == param
    assert peak < 1_000_000  # bytes; one error object takes some hundreds


def test_unknown_parameters_are_ignored_and_named(client: Any, caplog: Any) -> None:
    response = post(client, "/v1/chat/completions", CHAT | UNKNOWN)
    assert response.status_code == 200
    assert response.headers["x-edge-llm-ignored"] == "frobnicate, x??y??z, messages[0].mood"
    assert "frobnicate" in caplog.text


def test_known_parameters_without_effect_are_not_named(client: Any) -> None:
    neutral = {
        "user": "me",
        "store": False,
        "metadata": {},
        "tools": [],
        "response_format": {"type": "text"},
        "modalities": ["text"],
        "temperature": None,
    }
    response = post(client, "/v1/chat/completions", CHAT | neutral)
    assert response.status_code == 200
    assert "x-edge-llm-ignored" not in response.headers


def test_strict_refuses_unknown_parameters(make_client: Any) -> None:
    response = post(make_client(strict=True), "/v1/chat/completions", CHAT | UNKNOWN)
    check(response, 400, INVALID, "frobnicate", "unknown_parameter")


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/completions", LEGACY)]
)
def test_unknown_model(client: Any, path: str, body: Any) -> None:
    error = check(
        post(client, path, body | {"model": "gpt-secret"}), 404, INVALID, "model", "model_not_found"
    )
    expected = "The model 'gpt-secret' does not exist here; served: 'fake-model', "
    assert error["message"].startswith(expected)
    odd = body | {"model": "</a>\n\u202e" + "x" * 5000}
    error = check(post(client, path, odd), 404, INVALID, "model", "model_not_found")
    assert f"The model '?/a???{'x' * 58}...' does not exist" in error["message"]
    assert post(client, path, body | {"model": "fake-file"}).json()["model"] == "fake-model"


@pytest.mark.parametrize("stream", [False, True])
def test_prompt_too_long(client: Any, stream: bool) -> None:
    long = {"messages": [{"role": "user", "content": "x" * 600}], "stream": stream}
    error = check(
        post(client, "/v1/chat/completions", CHAT | long),
        400,
        INVALID,
        "messages",
        "context_length_exceeded",
    )
    assert error["message"].startswith(
        "This model's maximum context length is 512 tokens. However, your messages resulted in 606"
    )
    assert (error["n_ctx"], error["n_prompt_tokens"]) == (512, 606)


def test_prompt_too_long_in_completions(client: Any) -> None:
    response = post(client, "/v1/completions", LEGACY | {"prompt": [1] * 512})
    check(response, 400, INVALID, "prompt", "context_length_exceeded")
    scored = {"prompt": [1] * 513, "echo": True, "logprobs": 1, "max_tokens": 0}
    response = post(client, "/v1/completions", LEGACY | scored)
    check(response, 400, INVALID, "prompt", "context_length_exceeded")


def test_unknown_route_and_wrong_method(client: Any) -> None:
    check(client.get("/v1/nothing"), 404, INVALID, None, "unknown_url")
    check(client.get("/redoc"), 404, INVALID, None, "unknown_url")
    check(client.get("/v1/models/"), 404, INVALID, "model", "model_not_found")
    response = client.get("/v1/chat/completions")
    check(response, 405, INVALID)
    assert response.headers["allow"] == "POST"
    response = client.options("/v1/models")
    check(response, 405, INVALID)
    assert response.headers["allow"] == "GET, HEAD"


def test_body_over_the_limit(make_client: Any) -> None:
    client = make_client(max_body=100)
    long = json.dumps(CHAT | {"user": "x" * 100}).encode()
    check(client.post("/v1/chat/completions", content=long, headers=JSON), 413, INVALID)
    chunks = (long[i : i + 10] for i in range(0, len(long), 10))
    check(client.post("/v1/chat/completions", content=chunks, headers=JSON), 413, INVALID)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_content_type(client: Any, kind: str) -> None:
    data = json.dumps(CHAT)
    response = client.post("/v1/chat/completions", content=data, headers={"content-type": kind})
    check(response, 415, INVALID)
    kind = "Application/JSON; charset=utf-8"
    response = client.post("/v1/chat/completions", content=data, headers={"content-type": kind})
    assert response.status_code == 200


def test_queue_full(client: Any, service: Any) -> None:
    class Running:
        def abort(self) -> None: ...

    running = [Running() for _ in range(4)]
    for request in running:
        service.enter(request, 32, service.shelf.offers[0].model)
    response = post(client, "/v1/chat/completions", CHAT)
    check(response, 429, "rate_limit_error", None, "rate_limit_exceeded")
    assert int(response.headers["retry-after"]) >= 1
    service.leave(running[0])
    assert post(client, "/v1/chat/completions", CHAT).status_code == 200


def test_loading_and_draining(make_client: Any, service: Any) -> None:
    service.drain()
    response = post(make_client(), "/v1/chat/completions", CHAT)
    check(response, 503, "server_error")
    assert int(response.headers["retry-after"]) >= 1


def test_our_own_bug(client: Any, caplog: Any) -> None:
    change = {"messages": [{"role": "user", "content": "break"}]}
    error = check(post(client, "/v1/chat/completions", CHAT | change), 500, "server_error")
    assert "ZeroDivisionError" not in error["message"]
    assert "ZeroDivisionError" in caplog.text  # the log has it


def test_a_bug_in_a_route(client: Any, service: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(service, "check", None)
    check(client.get("/health"), 500, "server_error")


def test_nothing_of_a_prompt_is_echoed_or_logged(client: Any, caplog: Any) -> None:
    caplog.set_level("DEBUG", logger="edge_llm")
    secret = "correct horse battery staple"
    bodies = [
        {"messages": [{"role": "user", "content": secret}]},
        {"messages": [{"role": secret, "content": secret}]},
        {"messages": secret},
        {"temperature": secret},
        {"logit_bias": {secret: secret}},
        {"stop": [{secret: secret}]},
        {"model": secret},
    ]
    for change in bodies:
        response = post(client, "/v1/chat/completions", CHAT | change)
        assert secret not in response.text
    assert secret not in caplog.text
    assert "/v1/chat/completions" in caplog.text


def test_an_unknown_url_says_where_the_known_ones_are(client: Any) -> None:
    response = client.get("/v1/chat")
    assert response.status_code == 404
    assert "/docs" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ("chat/completions", CHAT | {"stop": 5}, "stop"),
        ("responses", {"input": 5}, "input"),
        ("responses", {"input": [{"role": "user", "content": 5}]}, "input[0].content"),
    ],
)
def test_all_types_of_a_field_are_named(client: Any, path: str, body: Any, param: str) -> None:
    message = post(client, f"/v1/{path}", body).json()["error"]["message"]
    assert message == f"Invalid type for '{param}': expected a string or an array."
    listed = post(client, "/v1/chat/completions", {"messages": 5}).json()["error"]["message"]
    assert listed == "Invalid type for 'messages': expected an array."
