"""Clients at different addresses share a server alike, however many requests each has."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import waiting

import edge_llm

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 without being told"
)

ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5},
    "/api/chat": {"messages": [{"role": "user", "content": "hi"}]},
    "/api/generate": {"prompt": "hi"},
}


def client_at(address: str, url: str) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(transport=transport, base_url=url, timeout=60)


@pytest.mark.parametrize("path", ROUTES)
def test_a_request_is_its_peers(serve_live: Any, model: Any, path: str) -> None:
    with serve_live() as server:
        for address in ("127.0.0.1", "127.0.0.9"):
            with client_at(address, server.url) as client:
                assert client.post(path, json=ROUTES[path]).status_code == 200
    assert [request.client for request in model.requests] == ["127.0.0.1", "127.0.0.9"]


@pytest.fixture
def llm(tiny_program: Any) -> Iterator[edge_llm.LLM]:
    with edge_llm.load(tiny_program(), threads=1, max_sequences=2) as llm:
        yield llm


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings"])
def test_a_backlog_keeps_nobody_else_waiting(serve_live: Any, llm: edge_llm.LLM, path: str) -> None:
    body = {"max_tokens": 200, "temperature": 0, "ignore_eos": True}
    with (
        serve_live(of=llm) as server,
        client_at("127.0.0.1", server.url) as many,
        client_at("127.0.0.9", server.url) as one,
        ThreadPoolExecutor(20) as pool,
    ):
        backlog = [
            pool.submit(many.post, "/v1/completions", json=body | {"prompt": [9, number]})
            for number in range(1, 21)
        ]
        waiting.wait_until(lambda: llm.stats().waiting >= 15)
        asked = {"prompt": [5, 6], "max_tokens": 4} if path == "/v1/completions" else {"input": "a"}
        assert one.post(path, json=asked).status_code == 200
        assert sum(reply.done() for reply in backlog) < 10
        assert all(reply.result().status_code == 200 for reply in backlog)


def active(server: Any) -> float:
    (line,) = (
        line
        for line in waiting.get(f"{server.url}/metrics").text.splitlines()
        if line.startswith("edge_llm_requests_active")
    )
    return float(line.split()[1])


def test_clients_take_turns_at_encoding(serve_live: Any, model: Any) -> None:
    begun: list[str] = []
    go, make = threading.Event(), model.chat_jobs

    def slow(call: Any, *arguments: Any) -> Any:
        begun.append(call.messages[0]["content"])
        go.wait(60)
        return make(call, *arguments)

    def body(text: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": text}], "max_tokens": 1}

    model.chat_jobs = slow
    path = "/v1/chat/completions"
    with (
        serve_live() as server,
        client_at("127.0.0.1", server.url) as many,
        client_at("127.0.0.9", server.url) as one,
        ThreadPoolExecutor(20) as pool,
    ):
        replies = [pool.submit(many.post, path, json=body(f"many {i}")) for i in range(9)]
        waiting.wait_until(lambda: active(server) == 9)
        replies.append(pool.submit(one.post, path, json=body("one")))
        waiting.wait_until(lambda: active(server) == 10)
        go.set()
        assert all(reply.result().status_code == 200 for reply in replies)
    assert begun.index("one") <= 4  # two had begun, and two threads go on at once
