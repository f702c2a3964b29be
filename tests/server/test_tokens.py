"""``/tokenize``, ``/detokenize`` and ``/tokenizer_info``."""

from __future__ import annotations

import json
from typing import Any

import pytest

JSON = {"content-type": "application/json"}


def ask(client: Any, path: str, **body: Any) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


def test_a_text(client: Any) -> None:
    body = ask(client, "/tokenize", prompt="a<special>é", model="fake-file")
    assert body == {"tokens": [97, 256, 0xC3, 0xA9], "count": 4, "max_model_len": 512}
    shown = ask(client, "/tokenize", prompt="a<special>", return_token_strs=True)
    assert shown["token_strs"] == ["a", "<special>"]
    long = ask(client, "/tokenize", prompt="x" * 5000, add_special_tokens=False)
    assert long["count"] == 5000  # more than the context


def test_a_conversation(client: Any, model: Any) -> None:
    messages = [{"role": "developer", "content": "be"}, {"role": "user", "content": "a"}]
    body = ask(
        client,
        "/tokenize",
        messages=messages,
        tools=[{"type": "function", "function": {"name": "f"}}],
        add_generation_prompt=False,
        chat_template_kwargs={"x": 1},
    )
    assert bytes(body["tokens"]).decode() == "system:be\nuser:a\n"
    (call,) = model.calls
    assert [tool.name for tool in call.tools] == ["f"]
    assert (call.add_generation_prompt, call.template_variables) == (False, {"x": 1})
    assert not model.requests  # nothing was generated


def test_back_to_text(client: Any) -> None:
    assert ask(client, "/detokenize", tokens=[97, 256, 98.0]) == {"prompt": "a<special>b"}
    assert ask(client, "/detokenize", tokens=[]) == {"prompt": ""}


@pytest.mark.parametrize(
    ("path", "body", "param", "code"),
    [
        ("/tokenize", {}, "prompt", "missing_required_parameter"),
        ("/tokenize", {"prompt": 3}, "prompt", "invalid_type"),
        ("/tokenize", {"prompt": ["a"]}, "prompt", "invalid_type"),
        ("/tokenize", {"messages": []}, "messages", "empty_array"),
        (
            "/tokenize",
            {"messages": [{"role": "user"}]},
            "messages[0].content",
            "missing_required_parameter",
        ),
        (
            "/tokenize",
            {"prompt": "a", "messages": [{"role": "user", "content": "a"}]},
            "messages",
            None,
        ),
        ("/tokenize", {"messages": [{"role": "user", "content": "reject me"}]}, "messages", None),
        ("/tokenize", {"prompt": "a", "model": "x"}, "model", "model_not_found"),
        ("/detokenize", {}, "tokens", "missing_required_parameter"),
        ("/detokenize", {"tokens": "a"}, "tokens", "invalid_type"),
        ("/detokenize", {"tokens": [1, "a"]}, "tokens[1]", "invalid_type"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]", "integer_below_min_value"),
        ("/detokenize", {"tokens": [258]}, "tokens[0]", "invalid_value"),
        ("/detokenize", {"tokens": [0] * (2**20 + 1)}, "tokens", "array_above_max_length"),
    ],
)
def test_errors(client: Any, path: str, body: Any, param: str, code: str | None) -> None:
    response = client.post(path, content=json.dumps(body), headers=JSON)
    error = response.json()["error"]
    assert response.status_code == (404 if code == "model_not_found" else 400)
    assert (error["param"], error["code"]) == (param, code)


def test_what_is_ignored_is_named(client: Any, make_client: Any) -> None:
    response = client.post("/tokenize", json={"prompt": "a", "mood": 1})
    assert response.headers["x-edge-llm-ignored"] == "mood"
    response = make_client(strict=True).post("/detokenize", json={"tokens": [], "mood": 1})
    assert response.json()["error"]["code"] == "unknown_parameter"


def test_a_place_is_needed(client: Any, service: Any) -> None:
    class Running:
        def abort(self) -> None: ...

    service.enter(Running(), 128, service.shelf.offers[0].model)
    assert client.post("/tokenize", json={"prompt": "a"}).status_code == 429


def test_what_a_tokenizer_is_known_by(client: Any, model: Any) -> None:
    body = client.get("/tokenizer_info").json()
    assert body == client.get("/tokenizer_info", params={"model": "fake-file"}).json()
    assert body["chat_template"] == model.about.chat_template
    facts = model.tokenizer.facts
    assert body["eos_token"] == model.tokenizer.decode([facts.eos_id], skip_specials=False)
    assert body["bos_token"] is None
    assert client.get("/tokenizer_info", params={"model": "none"}).status_code == 404
