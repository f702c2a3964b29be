"""The front sends on what one server replies, and tells it when the client has left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_llm.server.cluster.call import Call, replied
from edge_llm.server.cluster.figures import merged
from edge_llm.server.cluster.front import Front
from edge_llm.server.options import ServerOptions


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    message = await receive()
    told = {
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "header": dict(scope["headers"]).get(b"x-one", b"").decode("latin-1"),
        "body": len(message["body"]),
    }
    await send({"type": "http.response.start", "status": 201, "headers": [(b"x-two", b"2")]})
    for letter in json.dumps(told):
        await send({"type": "http.response.body", "body": letter.encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def no_figures() -> bytes:
    return b"none"


def front(app: ASGIApp, **options: Any) -> Front:
    async def ask(call: Call) -> AsyncGenerator[Message, None]:
        async for message in replied(app, call):
            yield message

    return Front(ask, no_figures, ServerOptions(**options))


def ask(app: ASGIApp, method: str, path: str, **fields: Any) -> httpx.Response:
    async def work() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **fields)

    return asyncio.run(work())


def test_request_and_reply_pass_unchanged() -> None:
    reply = ask(front(echo), "POST", "/v1/x?a=b%20c", content=b"12345", headers={"x-one": b"\xe9"})
    assert reply.status_code == 201
    assert reply.headers["x-two"] == "2"
    assert reply.json() == {
        "method": "POST",
        "path": "/v1/x",
        "query": "a=b%20c",
        "header": "é",
        "body": 5,
    }


def test_a_body_beyond_the_limit_is_cut_for_the_server_to_refuse() -> None:
    assert ask(front(echo, max_body=100), "POST", "/x", content=b"x" * 5000).json()["body"] == 101


def test_a_slow_body_is_refused() -> None:
    sent: list[Message] = []

    async def work() -> None:
        async def receive() -> Message:
            await asyncio.sleep(60)
            raise AssertionError

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/x", "headers": []}
        await front(echo, body_seconds=0.01)(scope, receive, send)

    asyncio.run(work())
    assert sent[0]["status"] == 408
    assert "error" in json.loads(sent[1]["body"])


def test_a_replica_that_fails_before_its_reply_is_an_error_to_retry() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise OSError("the node is gone")

    reply = ask(front(broken), "POST", "/v1/chat/completions", json={})
    assert reply.status_code == 503
    assert "retry-after" in reply.headers
    assert reply.json()["error"]["message"] == "The replica that had the request has failed."


def test_a_replica_that_fails_within_its_reply_breaks_it() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise OSError("the node is gone")

    with pytest.raises(OSError, match="the node is gone"):
        ask(front(broken), "POST", "/v1/chat/completions", json={})


@pytest.mark.parametrize("polite", [True, False], ids=["ends by itself", "is cancelled"])
def test_a_client_that_leaves_ends_the_request(polite: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr("edge_llm.server.cluster.call._GRACE", 0.05)
    ended: list[str] = []

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        leaving = asyncio.create_task(receive())  # type: ignore[arg-type]
        try:
            while not (polite and leaving.done()):
                try:
                    await send({"type": "http.response.body", "body": b"x", "more_body": True})
                except OSError:
                    if polite:
                        break
                await asyncio.sleep(0)
            ended.append((await leaving)["type"])
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def work() -> None:
        got = 0
        left = asyncio.Event()
        first = True

        async def receive() -> Message:
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": b"{}", "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            nonlocal got
            got += 1
            if got == 50:
                left.set()

        scope = {"type": "http", "method": "POST", "path": "/v1/x", "headers": []}
        await asyncio.wait_for(front(endless)(scope, receive, send), 10)
        await asyncio.sleep(0.1)
        assert len(asyncio.all_tasks()) == 1  # nothing goes on

    asyncio.run(work())
    assert ended == ["http.disconnect" if polite else "cancelled"]


def test_a_client_that_leaves_before_its_request_ends_is_not_asked_for() -> None:
    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    async def work() -> None:
        async def receive() -> Message:
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            raise AssertionError

        scope = {"type": "http", "method": "POST", "path": "/v1/x", "headers": []}
        await front(never)(scope, receive, send)

    asyncio.run(work())


def test_figures_are_those_of_all_replicas() -> None:
    async def one(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"its own"})

    assert ask(front(one), "GET", "/metrics").content == b"none"

    async def refused(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"a key is missing"})

    assert ask(front(refused), "GET", "/metrics").status_code == 401


def test_pages_of_figures_are_merged() -> None:
    page = b'# HELP a_total Some.\n# TYPE a_total counter\na_total{route="/x"} %d.0\n'
    text = merged({"one": page % 3, "two": page % 4}).decode()
    assert text.count("# TYPE a_total counter") == 1
    assert 'a_total{replica="one",route="/x"} 3.0' in text
    assert 'a_total{replica="two",route="/x"} 4.0' in text


def test_a_lifespan_is_answered() -> None:
    async def work() -> list[str]:
        events = iter(("lifespan.startup", "lifespan.shutdown"))
        sent = []

        async def receive() -> Message:
            return {"type": next(events)}

        async def send(message: Message) -> None:
            sent.append(message["type"])

        await front(echo)({"type": "lifespan"}, receive, send)
        return sent

    assert asyncio.run(work()) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
