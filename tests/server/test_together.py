"""Tokens that come within a short time are read and sent together."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpx
import pytest

from edge_llm.runner.engine.events import TokenEvent
from edge_llm.server.gate.connection import Connection
from edge_llm.server.generation import _Inbox


def token(number: int) -> tuple[int, TokenEvent]:
    return 0, TokenEvent(number, None)


def test_what_comes_soon_after_is_taken_in_together() -> None:
    async def read() -> None:
        inbox = _Inbox(lambda stats: None, lambda: None)
        inbox.put(token(1))
        assert await inbox.get() == token(1)  # the first one at once
        assert not inbox.filled
        for number in (2, 3, 4):
            inbox.put(token(number))
        assert await inbox.get() == token(2)
        assert inbox.filled
        assert [await inbox.get(), await inbox.get()] == [token(3), token(4)]
        assert not inbox.filled

    asyncio.run(read())


def test_a_failure_waits_for_nothing_and_comes_behind_what_came_before() -> None:
    async def read() -> None:
        inbox = _Inbox(lambda stats: None, lambda: None)
        inbox.put(token(1))
        await inbox.get()
        inbox.put(token(2))
        error = RuntimeError("gone")
        inbox.put(error)
        assert [await inbox.get(), await inbox.get()] == [token(2), error]
        inbox.put(token(3))  # the loop has not forgotten to look again
        assert await inbox.get() == token(3)

    asyncio.run(read())


def test_a_token_does_not_wait_for_the_client_to_answer_for_the_last_one(
    serve_live: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    undelayed: list[int] = []
    made = Connection.connection_made

    def connection_made(self: Connection, transport: Any) -> None:
        peer = transport.get_extra_info("socket")
        undelayed.append(peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        made(self, transport)

    monkeypatch.setattr(Connection, "connection_made", connection_made)
    with serve_live() as server:
        assert httpx.get(f"{server.url}/health").status_code == 200
    assert undelayed
    assert all(undelayed)
