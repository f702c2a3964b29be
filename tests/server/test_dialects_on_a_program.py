"""The Anthropic and the Ollama dialect over a tiny program."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits
from fixtures_server import serving
from starlette.testclient import TestClient

import edge_llm
from edge_llm.server.app import create_app
from edge_llm.server.options import ServerOptions

USER = [{"role": "user", "content": "hello"}]
MESSAGE = {"messages": USER, "max_tokens": 8, "temperature": 0}
CHAT = {"messages": USER, "options": {"num_predict": 8, "temperature": 0}}


@pytest.fixture(scope="module")
def llm(tiny_program: Any) -> Iterator[edge_llm.LLM]:
    with edge_llm.load(tiny_program(), threads=2) as llm:
        yield llm


@pytest.fixture
def client(llm: edge_llm.LLM) -> TestClient:
    service = serving(llm, max_choices=4)
    return TestClient(create_app(service, ServerOptions()), base_url="http://127.0.0.1:8017")


def test_all_dialects_give_the_same_text(client: TestClient) -> None:
    openai = client.post("/v1/chat/completions", json=MESSAGE).json()
    text = openai["choices"][0]["message"]["content"]
    assert text
    anthropic = client.post("/v1/messages", json=MESSAGE).json()
    assert anthropic["content"] == [{"type": "text", "text": text}]
    ollama = client.post("/api/chat", json=CHAT | {"stream": False}).json()
    assert ollama["message"]["content"] == text
    prompt = {"prompt": "hello", "stream": False, "options": CHAT["options"]}
    assert client.post("/api/generate", json=prompt).json()["response"] == text
    usage = openai["usage"]
    cached = anthropic["usage"]["cache_read_input_tokens"]
    assert anthropic["usage"]["input_tokens"] + cached == usage["prompt_tokens"]
    assert ollama["prompt_eval_count"] == usage["prompt_tokens"]
    assert ollama["eval_count"] == usage["completion_tokens"]
    counted = client.post("/v1/messages/count_tokens", json={"messages": USER}).json()
    assert counted == {"input_tokens": usage["prompt_tokens"]}


def test_a_raw_prompt_is_that_of_completions(client: TestClient) -> None:
    body = {"prompt": "hello", "max_tokens": 8, "temperature": 0}
    text = client.post("/v1/completions", json=body).json()["choices"][0]["text"]
    raw = {"prompt": "hello", "raw": True, "stream": False, "options": CHAT["options"]}
    assert client.post("/api/generate", json=raw).json()["response"] == text


def test_vectors(client: TestClient, llm: edge_llm.LLM) -> None:
    reply = client.post("/api/embed", json={"model": llm.name, "input": ["a", "bc"]}).json()
    assert_same_bits(np.array(reply["embeddings"], np.float32), llm.embed(["a", "bc"]))
    tokens = sum(len(llm.tokenizer.encode(text)) for text in ("a", "bc"))
    assert reply["prompt_eval_count"] == tokens
    one = client.post("/api/embed", json={"input": "a", "dimensions": 4, "truncate": True}).json()
    assert_same_bits(np.array(one["embeddings"], np.float32), llm.embed(["a"], dimensions=4))
    older = client.post("/api/embeddings", json={"prompt": "a"}).json()
    expected = llm.embed(["a"], normalize=False)
    assert_same_bits(np.array([older["embedding"]], np.float32), expected)


def test_no_texts_give_no_vectors(client: TestClient) -> None:
    for empty in ("", []):
        assert client.post("/api/embed", json={"input": empty}).json()["embeddings"] == []
    assert client.post("/api/embeddings", json={}).json() == {"embedding": []}


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/api/embed", {}, "'input'"),
        ("/api/embed", {"input": 3}, "'input'"),
        ("/api/embed", {"input": ["a", 3]}, "'input[1]'"),
        ("/api/embed", {"input": ["a", ""]}, "input[1] is empty"),
        ("/api/embed", {"input": "a", "dimensions": 0}, "'dimensions'"),
        ("/api/embed", {"input": "a", "dimensions": 10**6}, "dimensions"),
        ("/api/embed", {"input": "x " * 100_000}, "context"),
        ("/api/embeddings", {"prompt": 3}, "'prompt'"),
        ("/api/embeddings", {"prompt": "x " * 100_000}, "context"),
    ],
)
def test_errors_of_vectors(client: TestClient, path: str, body: Any, words: str) -> None:
    response = client.post(path, json=body)
    assert response.status_code == 400, response.text
    assert set(response.json()) == {"error"}
    assert words in response.json()["error"]


def test_what_is_known_of_the_model(client: TestClient, llm: edge_llm.LLM) -> None:
    facts = llm.program.documents.model
    shown = client.post("/api/show", json={"model": llm.name}).json()
    assert shown["template"] == llm.program.documents.chat_template
    assert {"completion", "embedding"} <= set(shown["capabilities"])
    assert shown["model_info"]["general.parameter_count"] == facts.parameters
    assert shown["details"]["family"] == facts.family
    (listed,) = client.get("/api/tags").json()["models"]
    assert listed["size"] == llm.program.path.stat().st_size
    assert len(listed["digest"]) == 64
    assert dataclasses.asdict(llm.about)["quantization"] == shown["details"]["quantization_level"]


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/messages", MESSAGE | {"stream": True}), ("/api/chat", CHAT)]
)
def test_streams_are_the_whole_text(client: TestClient, path: str, body: dict[str, Any]) -> None:
    whole = client.post(path, json=body | {"stream": False}).json()
    streamed = client.post(path, json=body).text
    if path == "/api/chat":
        lines = [json.loads(line) for line in streamed.splitlines()]
        text = "".join(line["message"]["content"] for line in lines)
        assert text == whole["message"]["content"]
    else:
        data = [line[6:] for line in streamed.splitlines() if line.startswith("data: ")]
        deltas = [json.loads(item).get("delta", {}) for item in data]
        text = "".join(delta.get("text", "") for delta in deltas)
        assert [{"type": "text", "text": text}] == whole["content"]
