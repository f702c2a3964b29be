"""``POST /v1/rerank`` over a tiny program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fixtures_server import serving
from starlette.testclient import TestClient

import edge_llm
from edge_llm.server.app import create_app
from edge_llm.server.options import ServerOptions

PATH = "/v1/rerank"
DOCUMENTS = ["the hat", "a cat and another cat", "nothing at all"]


@pytest.fixture(scope="module")
def llm(tiny_program: Any) -> Iterator[edge_llm.LLM]:
    with edge_llm.load(tiny_program(), threads=2) as llm:
        yield llm


@pytest.fixture
def client(llm: edge_llm.LLM) -> TestClient:
    service = serving(llm, max_choices=4)
    return TestClient(create_app(service, ServerOptions()), base_url="http://127.0.0.1:8017")


def test_the_shape(client: TestClient, llm: edge_llm.LLM) -> None:
    response = client.post(PATH, json={"query": "where", "documents": DOCUMENTS})
    assert response.status_code == 200, response.text
    reply = response.json()
    assert reply.keys() == {"id", "model", "results", "usage"}
    scores = llm.rerank("where", DOCUMENTS)
    order = sorted(range(3), key=lambda index: -scores[index])
    assert [entry["index"] for entry in reply["results"]] == order
    assert [entry["relevance_score"] for entry in reply["results"]] == sorted(scores)[::-1]
    assert "document" not in reply["results"][0]
    tokens = sum(len(llm.tokenizer.encode(text)) for text in ["where", *DOCUMENTS])
    assert reply["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_top_n_with_documents(client: TestClient) -> None:
    body = {
        "query": "where",
        "documents": [{"text": DOCUMENTS[0]}, *DOCUMENTS[1:]],
        "top_n": 2,
        "return_documents": True,
    }
    results = client.post(PATH, json=body).json()["results"]
    assert len(results) == 2
    for entry in results:
        assert entry["document"] == {"text": DOCUMENTS[entry["index"]]}


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"documents": ["a"]}, "query", "missing_required_parameter"),
        ({"query": "a"}, "documents", "missing_required_parameter"),
        ({"query": "a", "documents": []}, "documents", "empty_array"),
        ({"query": "a", "documents": "b"}, "documents", "invalid_type"),
        ({"query": "a", "documents": [3]}, "documents[0]", "invalid_type"),
        ({"query": "a", "documents": ["b", ""]}, "documents[1]", None),
        ({"query": "", "documents": ["b"]}, "query", None),
        ({"query": "a", "documents": ["x"] * 2049}, "documents", "array_above_max_length"),
        ({"query": "a", "documents": ["b" * 300]}, "documents", "context_length_exceeded"),
        ({"query": "a", "documents": ["b"], "top_n": 0}, "top_n", "integer_below_min_value"),
    ],
)
def test_what_is_refused(
    client: TestClient, body: dict[str, Any], param: str, code: str | None
) -> None:
    response = client.post(PATH, json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    if code is not None:
        assert error["code"] == code
