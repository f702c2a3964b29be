"""``POST /v1/embeddings`` over a tiny program."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits
from fixtures_server import serving
from starlette.requests import Request
from starlette.testclient import TestClient

import edge_llm
from edge_llm.server.app import create_app
from edge_llm.server.errors import ApiError
from edge_llm.server.generation import ClientGoneError
from edge_llm.server.options import ServerOptions
from edge_llm.server.vectors import Encode, served

PATH = "/v1/embeddings"


@pytest.fixture(scope="module")
def llm(tiny_program: Any) -> Iterator[edge_llm.LLM]:
    with edge_llm.load(tiny_program(), threads=2) as llm:
        yield llm


@pytest.fixture
def client(llm: edge_llm.LLM) -> TestClient:
    service = serving(llm, max_choices=4)
    return TestClient(create_app(service, ServerOptions()), base_url="http://127.0.0.1:8017")


def ask(client: TestClient, status: int = 200, **body: Any) -> dict[str, Any]:
    response = client.post(PATH, json=body)
    assert response.status_code == status, response.text
    reply: dict[str, Any] = response.json()
    return reply


def vectors(reply: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.array([entry["embedding"] for entry in reply["data"]], np.float32)


def test_the_shape(client: TestClient, llm: edge_llm.LLM) -> None:
    reply = ask(client, model=llm.name, input=["the cat", "a hat"], user="me")
    assert reply.keys() == {"object", "data", "model", "usage"}
    assert reply["object"] == "list"
    assert reply["model"] == llm.name
    assert [entry.keys() for entry in reply["data"]] == [{"object", "index", "embedding"}] * 2
    assert [entry["index"] for entry in reply["data"]] == [0, 1]
    tokens = sum(len(llm.tokenizer.encode(text)) for text in ("the cat", "a hat"))
    assert reply["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert_same_bits(vectors(reply), llm.embed(["the cat", "a hat"]))


def test_what_input_may_be(client: TestClient, llm: edge_llm.LLM) -> None:
    ids = llm.tokenizer.encode("the cat")
    expected = llm.embed("the cat")
    for given in ("the cat", ["the cat"], ids, [ids], [float(token) for token in ids]):
        assert_same_bits(vectors(ask(client, input=given)), expected)
    assert len(ask(client, input=["the cat", ids])["data"]) == 2


def test_base64_is_float32(client: TestClient, llm: edge_llm.LLM) -> None:
    reply = ask(client, input="the cat", encoding_format="base64", dimensions=5)
    data = base64.b64decode(reply["data"][0]["embedding"])
    assert_same_bits(np.frombuffer(data, "<f4")[None], llm.embed("the cat", dimensions=5))


def test_extensions(client: TestClient, llm: edge_llm.LLM) -> None:
    reply = ask(client, input="the cat", pooling="last", normalize=False, input_type="query")
    assert_same_bits(vectors(reply), llm.embed("the cat", pooling="last", normalize=False))


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "input", "missing_required_parameter"),
        ({"input": 3}, "input", "invalid_type"),
        ({"input": []}, "input", "empty_array"),
        ({"input": ""}, "input", None),
        ({"input": ["a", ""]}, "input[1]", None),
        ({"input": [[1], []]}, "input[1]", None),
        ({"input": ["a", "b" * 300]}, "input", "context_length_exceeded"),
        ({"input": [5000]}, "input", None),
        ({"input": ["x"] * 2049}, "input", "array_above_max_length"),
        ({"input": "a", "dimensions": 0}, "dimensions", "integer_below_min_value"),
        ({"input": "a", "dimensions": 65}, "dimensions", None),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "invalid_value"),
        ({"input": "a", "pooling": "cls"}, "pooling", "invalid_value"),
        ({"input": "a", "truncate_prompt_tokens": 3}, "truncate_prompt_tokens", None),
    ],
)
def test_what_is_refused(
    client: TestClient, body: dict[str, Any], param: str, code: str | None
) -> None:
    error = ask(client, 400, **body)["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    if code is not None:
        assert error["code"] == code


def test_a_long_text_is_named(client: TestClient) -> None:
    error = ask(client, 400, input=["a", "b" * 300])["error"]
    assert "your input[1] resulted in" in error["message"]
    assert error["n_ctx"] == 256


def test_unknown_fields_are_named(client: TestClient) -> None:
    response = client.post(PATH, json={"input": "a", "color": 1})
    assert response.headers["x-edge-llm-ignored"] == "color"


def test_a_program_without_vectors_is_no_fault_of_the_server(
    client: TestClient, llm: edge_llm.LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = {"causal_lm": llm.program.plan.language_model}
    plan = dataclasses.replace(llm.program.plan, methods=methods)
    monkeypatch.setattr(llm.program, "plan", plan)
    error = ask(client, 400, input="a")["error"]
    assert (error["param"], error["code"]) == ("model", "unsupported_value")


def test_the_client_hangs_up(llm: edge_llm.LLM) -> None:
    service = serving(llm, max_choices=1)
    cancelled: list[bool] = []

    async def work(encode: Encode) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def gone() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def never() -> dict[str, Any]:
        await asyncio.sleep(60)
        return {}

    async def scene() -> None:
        with pytest.raises(ClientGoneError):
            await served(service, llm, work, Request({"type": "http"}, gone))
        assert service.requests == 0
        running = asyncio.create_task(served(service, llm, work, Request({"type": "http"}, never)))
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as refused:
            await served(service, llm, work, Request({"type": "http"}, never))
        assert refused.value.status == 429
        await asyncio.sleep(0)
        service.abort()
        with pytest.raises(ApiError) as stopped:
            await running
        assert stopped.value.status == 503
        assert service.requests == 0

    asyncio.run(scene())
    assert cancelled == [True, True]
