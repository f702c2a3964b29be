"""Every dialect cuts what is too long in the same way, and says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fixtures_contract import Contract
from fixtures_server import serving
from starlette.testclient import TestClient

import edge_llm
from edge_llm.server.app import create_app
from edge_llm.server.options import ServerOptions

TURNS = [{"role": ("user", "assistant")[i % 2], "content": f"{i:3d} some words"} for i in range(61)]
LONG = "some words " * 500
SAMPLING = {"max_tokens": 6, "temperature": 0}
OLLAMA = {"options": {"num_predict": 6, "temperature": 0}}

CHATS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": TURNS, **SAMPLING},
    "/v1/responses": {
        "input": [{"type": "message", **turn} for turn in TURNS],
        "max_output_tokens": 16,
        "temperature": 0,
    },
    "/v1/messages": {"messages": TURNS, **SAMPLING},
    "/api/chat": {"messages": TURNS, **OLLAMA},
}
TEXTS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": LONG, **SAMPLING},
    "/api/generate": {"prompt": LONG, "raw": True, **OLLAMA},
}


@pytest.fixture(scope="module")
def llm(tiny_program: Any) -> Iterator[edge_llm.LLM]:
    with edge_llm.load(
        tiny_program(), threads=1, context=256, context_policy="sliding-window"
    ) as llm:
        yield llm


@pytest.fixture
def client(llm: edge_llm.LLM, contract: Contract) -> TestClient:
    app = create_app(serving(llm, max_choices=8), ServerOptions())
    client = TestClient(app, base_url="http://127.0.0.1:8017")
    client.event_hooks = {"response": [contract.check]}
    return client


def told(reply: str) -> list[dict[str, Any]]:
    """Return what a reply says of the context, in its events, lines, or as a whole."""
    found = []
    for line in reply.splitlines():
        text = line.removeprefix("data: ")
        if not text.startswith("{"):
            continue
        data = json.loads(text)
        for place in (data, data.get("response")):
            if isinstance(place, dict) and place.get("context_policy"):
                found.append(place["context_policy"])
    return found


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [*CHATS, *TEXTS])
def test_every_dialect_says_what_was_left_out(client: TestClient, path: str, stream: bool) -> None:
    reply = client.post(path, json=(CHATS | TEXTS)[path] | {"stream": stream})
    assert reply.status_code == 200, reply.text
    (report,) = told(reply.text)
    assert report["policy"] == "sliding-window"
    assert report["dropped_prompt_tokens"] > 100
    assert report["window_moves"] == 0
    assert (report["dropped_messages"] > 10) == (path in CHATS)
    header = reply.headers["x-edge-llm-context"]
    assert header.startswith(
        f"sliding-window; dropped_prompt_tokens={report['dropped_prompt_tokens']}"
    )
    assert ("dropped_messages" in header) == (path in CHATS)


def test_the_dialects_cut_alike(client: TestClient) -> None:
    one, _, three, four = (
        client.post(path, json=body | {"stream": False}).json() for path, body in CHATS.items()
    )
    text = one["choices"][0]["message"]["content"]
    assert three["content"] == [{"type": "text", "text": text}]
    assert four["message"]["content"] == text
    assert one["context_policy"] == three["context_policy"] == four["context_policy"]
    assert one["usage"]["prompt_tokens"] == four["prompt_eval_count"] < 256


def test_an_answer_that_goes_on_says_so(client: TestClient) -> None:
    body = {"prompt": "hi", "max_tokens": 400, "temperature": 0, "ignore_eos": True}
    reply = client.post("/v1/completions", json=body).json()
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == 400
    assert reply["context_policy"]["window_moves"] == 3
    assert reply["context_policy"]["window_dropped_tokens"] == 3 * 64
    assert "max_tokens_clipped" not in reply["timings"]


@pytest.mark.parametrize("raw", [False, True])
def test_ollama_clients_may_have_nothing_cut(client: TestClient, raw: bool) -> None:
    asked = {"/api/chat": CHATS["/api/chat"], "/api/generate": {"prompt": LONG, "raw": raw}}
    for path, body in asked.items():
        reply = client.post(path, json={**body, "stream": False, "truncate": False})
        assert reply.status_code == 400
        assert "maximum context length is 256" in reply.json()["error"]


def test_what_fits_says_nothing(client: TestClient) -> None:
    for path, body in {
        "/v1/chat/completions": {"messages": TURNS[:1], **SAMPLING},
        "/v1/completions": {"prompt": ["a", "b"], "n": 2, **SAMPLING},
    }.items():
        reply = client.post(path, json=body)
        assert "context_policy" not in reply.json()
        assert "x-edge-llm-context" not in reply.headers


def test_several_prompts_are_summed_up(client: TestClient, llm: edge_llm.LLM) -> None:
    one = client.post("/v1/completions", json={"prompt": LONG, **SAMPLING}).json()
    body = {"prompt": [LONG, "short", LONG], "n": 2, **SAMPLING}
    reply = client.post("/v1/completions", json=body).json()
    assert len(reply["choices"]) == 6
    dropped = one["context_policy"]["dropped_prompt_tokens"]
    assert reply["context_policy"]["dropped_prompt_tokens"] == 2 * dropped


def test_an_echo_is_what_was_read(client: TestClient) -> None:
    body = {"prompt": LONG, "echo": True, "logprobs": 1, "max_tokens": 0}
    reply = client.post("/v1/completions", json=body).json()
    choice = reply["choices"][0]
    assert len(choice["logprobs"]["tokens"]) == reply["usage"]["prompt_tokens"] <= 256
    assert len(choice["text"]) < 2000
    assert choice["logprobs"]["text_offset"] == sorted(choice["logprobs"]["text_offset"])


def test_responses_are_told_to_refuse(client: TestClient) -> None:
    body = CHATS["/v1/responses"]
    whole = client.post("/v1/responses", json=body | {"truncation": "auto"}).json()
    assert whole["truncation"] == "auto"
    refused = client.post("/v1/responses", json=body | {"truncation": "disabled"})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    other = client.post("/v1/responses", json=body | {"truncation": "some"})
    assert other.json()["error"]["param"] == "truncation"


def test_tokens_are_counted_as_they_are(client: TestClient) -> None:
    counted = client.post("/v1/messages/count_tokens", json={"messages": TURNS})
    assert counted.json()["input_tokens"] > 256
