"""Fields that clients send and peers accept with a meaning."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge_llm.runner.sampling import INT32_MAX, PARAMETERS
from edge_llm.server.openai.schemas import ChatRequest, CompletionRequest

CHAT = {"model": "fake-model", "messages": [{"role": "user", "content": "hi"}]}
LEGACY = {"model": "fake-model", "prompt": "hi"}

ACCEPTED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_tokens": 3.0}, {"max_tokens": 3}),
    ({"max_completion_tokens": 3}, {"max_tokens": 3}),
    ({"n_predict": 3}, {"max_tokens": 3}),
    ({"max_tokens": None, "n_predict": 3}, {"max_tokens": 3}),
    ({"max_tokens": -1}, {"max_tokens": INT32_MAX}),
    ({"n_predict": -1.0}, {"max_tokens": INT32_MAX}),
    ({"seed": 7.0}, {"seed": 7}),
    ({"seed": 2**64 - 1}, {"seed": 2**64 - 1}),
    ({"n": 1.0}, {}),
    ({"top_k": -1}, {"top_k": 0}),
    ({"top_k": -1.0}, {"top_k": 0}),
    ({"top_k": 5.0}, {"top_k": 5}),
    ({"temperature": 1}, {"temperature": 1.0}),
    ({"repeat_penalty": 1.5}, {"repetition_penalty": 1.5}),
    ({"stop": ""}, {"stop": ()}),
    ({"stop": []}, {"stop": ()}),
    ({"stop": None}, {"stop": ()}),
    ({"stop": "end"}, {"stop": ("end",)}),
    ({"stop_sequences": ["end"]}, {"stop": ("end",)}),
    ({"suffix": "", "grammar": ""}, {}),
    ({"logit_bias": {"7": 1}}, {"logit_bias": {7: 1.0}}),
    ({"logit_bias": [[7, 1], [8.0, -2.5]]}, {"logit_bias": {7: 1.0, 8: -2.5}}),
    ({"logit_bias": []}, {"logit_bias": {}}),
    ({"ignore_eos": True}, {"ignore_eos": True}),
    ({"min_tokens": 3.0, "max_tokens": 5}, {"min_tokens": 3}),
    ({"stop_token_ids": [7, 8.0]}, {"stop_token_ids": (7, 8)}),
    ({"stop_token_ids": None}, {"stop_token_ids": ()}),
    ({"typical_p": 0.5}, {"typical_p": 0.5}),
    ({"dry_multiplier": 0.8, "dry_base": 2}, {"dry_multiplier": 0.8, "dry_base": 2.0}),
    ({"dry_allowed_length": 3, "dry_penalty_last_n": -1}, {"dry_allowed_length": 3}),
    ({"dry_sequence_breakers": "."}, {"dry_sequence_breakers": (".",)}),
    ({"dry_sequence_breakers": []}, {"dry_sequence_breakers": ()}),
    ({"dry_sequence_breakers": None}, {"dry_sequence_breakers": ("\n", ":", '"', "*")}),
    ({"xtc_probability": 0.5, "xtc_threshold": 0.2}, {"xtc_probability": 0.5}),
    ({"include_stop_str_in_output": True}, {"include_stop_str_in_output": True}),
    ({"skip_special_tokens": False}, {"skip_special_tokens": False}),
]


@pytest.mark.parametrize(("change", "expected"), ACCEPTED)
@pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/completions", LEGACY)]
)
def test_what_is_accepted(
    client: Any, model: Any, path: str, body: dict[str, Any], change: Any, expected: Any
) -> None:
    response = client.post(path, json=body | change)
    assert response.status_code == 200, response.text
    assert "x-edge-llm-ignored" not in response.headers
    params = model.requests[0].params
    assert {name: getattr(params, name) for name in expected} == expected


def test_what_is_left_out_is_the_models(client: Any, model: Any) -> None:
    assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
    assert model.requests[0].params == model.default_params()


def test_token_ids_may_come_as_floats(client: Any, model: Any) -> None:
    for prompt in ([65.0, 66], [[65, 66.0]]):
        assert client.post("/v1/completions", json=LEGACY | {"prompt": prompt}).status_code == 200
    assert [request.prompt for request in model.requests] == [[65, 66]] * 2
    assert client.post("/v1/completions", json=LEGACY | {"prompt": [6.5]}).status_code == 400


def test_every_parameter_of_the_table_is_documented() -> None:
    for request in (ChatRequest, CompletionRequest):
        properties = request.model_json_schema()["properties"]
        for name, parameter in PARAMETERS.items():
            for alias in (name, *parameter.aliases) if parameter.http else ():
                assert properties[alias]["description"] == parameter.meaning


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"min_tokens": 17, "max_tokens": 16}, "min_tokens", "null"),
    ({"min_tokens": -1}, "min_tokens", "integer_below_min_value"),
    ({"stop_token_ids": 7}, "stop_token_ids", "invalid_type"),
    ({"stop_token_ids": ["7"]}, "stop_token_ids[0]", "invalid_type"),
    ({"stop_token_ids": [-1]}, "stop_token_ids[0]", "integer_below_min_value"),
    ({"stop_token_ids": [1] * 257}, "stop_token_ids", "array_above_max_length"),
    ({"typical_p": 1.5}, "typical_p", "decimal_above_max_value"),
    ({"dry_base": 0.5}, "dry_base", "decimal_below_min_value"),
    ({"dry_penalty_last_n": 1.5}, "dry_penalty_last_n", "invalid_type"),
    ({"dry_sequence_breakers": ["a"] * 33}, "dry_sequence_breakers", "array_above_max_length"),
    ({"dry_sequence_breakers": [""]}, "dry_sequence_breakers[0]", "empty_string"),
    ({"xtc_threshold": "x"}, "xtc_threshold", "invalid_type"),
]


@pytest.mark.parametrize(("change", "param", "code"), REFUSED)
def test_what_is_refused(client: Any, change: Any, param: str, code: str) -> None:
    response = client.post("/v1/completions", json=LEGACY | change)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert error["code"] == (None if code == "null" else code)


def test_stop_strings_are_included_and_special_tokens_shown_if_asked(
    client: Any, model: Any
) -> None:
    model.answer = [256, *b"Hello, world"]
    for change, text in (
        ({}, "Hello"),
        ({"include_stop_str_in_output": True}, "Hello, w"),
        ({"skip_special_tokens": False}, "<special>Hello"),
    ):
        body = CHAT | {"stop_sequences": [", w"], "max_tokens": 50} | change
        reply = client.post("/v1/chat/completions", json=body).json()
        assert reply["choices"][0]["message"]["content"] == text


def test_no_stop_string_acts_before_min_tokens(client: Any) -> None:
    body = LEGACY | {"stop": ["o", "l"], "min_tokens": 4, "logprobs": 0}
    choice = client.post("/v1/completions", json=body).json()["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("Hell", "stop")
    assert choice["logprobs"]["tokens"] == list("Hell")


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_end_where_the_text_ends(client: Any, model: Any, stream: bool) -> None:
    model.answer = "Hello, world"
    body = CHAT | {"logprobs": True, "stop": ", w", "stream": stream}
    response = client.post("/v1/chat/completions", json=body)
    if stream:
        chunks = [line[6:] for line in response.text.splitlines() if line.startswith("data: {")]
        choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
        text = "".join(choice["delta"].get("content") or "" for choice in choices)
        entries = [
            entry
            for choice in choices
            for entry in (choice["logprobs"] or {"content": []})["content"]
        ]
    else:
        choice = response.json()["choices"][0]
        text, entries = choice["message"]["content"], choice["logprobs"]["content"]
        assert response.json()["usage"]["completion_tokens"] == len("Hello, w")
    assert text == "Hello"
    assert "".join(entry["token"] for entry in entries) == "Hello"


def test_legacy_logprobs_end_where_the_text_ends(client: Any, model: Any) -> None:
    body = LEGACY | {"logprobs": 1, "stop": ", w"}
    choice = client.post("/v1/completions", json=body).json()["choices"][0]
    assert choice["text"] == "".join(choice["logprobs"]["tokens"]) == "Hello"
    assert choice["logprobs"]["text_offset"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("prefix", ["/v1", ""])
@pytest.mark.parametrize(("path", "body"), [("/chat/completions", CHAT), ("/completions", LEGACY)])
def test_a_missing_model_is_the_served_one(
    client: Any, prefix: str, path: str, body: dict[str, Any]
) -> None:
    rest = {name: value for name, value in body.items() if name != "model"}
    response = client.post(prefix + path, json=rest)
    assert response.status_code == 200, response.text
    assert response.json()["model"] == "fake-model"
