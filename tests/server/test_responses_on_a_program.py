"""``/v1/responses`` over a tiny program: what is enforced, what is cached, what is continued."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fixtures_server import serving
from starlette.testclient import TestClient

import edge_llm
from edge_llm.server.app import create_app
from edge_llm.server.options import ServerOptions

PATH = "/v1/responses"
MOOD = {
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad"]}, "score": {"type": "boolean"}},
    "required": ["mood", "score"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "name": "feel", "parameters": MOOD}


@pytest.fixture(scope="module")
def llm(tiny_program: Any) -> Iterator[edge_llm.LLM]:
    path = tiny_program(max_position_embeddings=2048)
    with edge_llm.load(path, threads=2) as llm:
        yield llm


@pytest.fixture(scope="module")
def client(llm: edge_llm.LLM) -> TestClient:
    service = serving(llm, max_choices=4)
    return TestClient(create_app(service, ServerOptions()), base_url="http://127.0.0.1:8017")


def ask(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post(PATH, json={"input": "hello", "temperature": 0} | body)
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


def text_of(reply: dict[str, Any]) -> str:
    return "".join(
        part["text"] for item in reply["output"] for part in item["content"] if "text" in part
    )


def test_the_text_is_that_of_a_chat(client: TestClient) -> None:
    messages = [{"role": "user", "content": "hello"}]
    chat = client.post(
        "/v1/chat/completions", json={"messages": messages, "temperature": 0, "max_tokens": 8}
    ).json()
    reply = ask(client, max_output_tokens=8)
    assert text_of(reply) == chat["choices"][0]["message"]["content"]
    assert reply["usage"]["input_tokens"] == chat["usage"]["prompt_tokens"]


def test_a_next_turn_finds_the_one_before_in_the_cache(client: TestClient) -> None:
    first = ask(client, input="a question of some length, " * 5, max_output_tokens=8)
    second = ask(client, input="and more", previous_response_id=first["id"], max_output_tokens=8)
    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]
    assert second["usage"]["input_tokens_details"]["cached_tokens"] > 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_form_is_enforced(client: TestClient, stream: bool) -> None:
    form = {"format": {"type": "json_schema", "name": "mood", "schema": MOOD}}
    if stream:
        body = {"input": "hello", "text": form, "stream": True, "temperature": 0}
        lines = client.post(PATH, json=body).text.splitlines()
        told = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        text = "".join(e["delta"] for e in told if e["type"] == "response.output_text.delta")
        assert told[-1]["type"] == "response.completed"
    else:
        text = text_of(ask(client, text=form))
    assert list(json.loads(text)) == ["mood", "score"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "feel"}])
def test_a_call_is_enforced(client: TestClient, choice: Any) -> None:
    reply = ask(client, tools=[TOOL], tool_choice=choice, parallel_tool_calls=False)
    (call,) = reply["output"]
    assert (call["type"], call["name"]) == ("function_call", "feel")
    assert json.loads(call["arguments"])["mood"] in ("good", "bad")


def test_an_answer_that_has_begun_goes_on(client: TestClient) -> None:
    whole = text_of(ask(client, max_output_tokens=8, ignore_eos=True))
    begun = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": whole[:3]}]
    for switch in ({"continue_final_message": True}, {"add_generation_prompt": False}):
        reply = ask(client, input=begun, max_output_tokens=4, ignore_eos=True, **switch)
        assert not text_of(reply).startswith(whole[:3])
        assert reply["usage"]["output_tokens"] == 4


def test_what_cannot_be_enforced(client: TestClient) -> None:
    body = {"input": "hello", "tools": [{**TOOL, "parameters": {"type": "object", "not": {}}}]}
    error = client.post(PATH, json=body | {"tool_choice": "required"}).json()["error"]
    assert (error["param"], error["code"]) == ("tools[0]", "unsupported_value")
    assert "not" in error["message"]
    error = client.post(PATH, json={"input": "hello", "reasoning": {"effort": "high"}}).json()
    assert error["error"]["param"] == "reasoning.effort"
