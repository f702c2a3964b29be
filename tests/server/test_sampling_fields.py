"""Fields that clients send and peers accept with a meaning."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge_llm.runner.sampling import PARAMETERS
from edge_llm.server.openai.schemas import ChatRequest, CompletionRequest

CHAT = {"model": "fake-model", "messages": [{"role": "user", "content": "hi"}]}
LEGACY = {"model": "fake-model", "prompt": "hi"}

ACCEPTED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_tokens": 3.0}, {"max_tokens": 3}),
    ({"max_completion_tokens": 3}, {"max_tokens": 3}),
    ({"n_predict": 3}, {"max_tokens": 3}),
    ({"max_tokens": None, "n_predict": 3}, {"max_tokens": 3}),
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
    ({"ignore_eos": True}, {"ignore_eos": True}),
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
