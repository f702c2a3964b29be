"""Tokens that come within a short time are read and sent together."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest
import waiting

from edge_llm.errors import GenerationError
from edge_llm.runner.engine.events import ErrorEvent, TokenEvent
from edge_llm.runner.generation.async_inbox import Bell
from edge_llm.server.gate.connection import Connection
from edge_llm.server.generation import TOGETHER_PIECES, ServedGeneration
from edge_llm.server.inbox import ServedInbox
from edge_llm.server.service import Service


def token(number: int) -> tuple[int, TokenEvent]:
    return 0, TokenEvent(number, None)


def test_a_failure_waits_for_nothing_and_comes_behind_what_came_before() -> None:
    async def read() -> None:
        inbox = ServedInbox(Bell(), lambda stats: None, lambda: None)
        inbox.put(token(1))
        await inbox.get()
        inbox.put(token(2))
        error = RuntimeError("gone")
        inbox.put(error)
        assert [await inbox.get(), await inbox.get()] == [token(2), error]
        inbox.put(token(3))  # the loop has not forgotten to look again
        assert await inbox.get() == token(3)

    asyncio.run(read())


def test_a_step_of_many_answers_wakes_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read() -> None:
        loop, calls = asyncio.get_running_loop(), []
        wake = loop.call_soon_threadsafe
        monkeypatch.setattr(
            loop, "call_soon_threadsafe", lambda *args: (calls.append(args), wake(*args))
        )
        bell = Bell()
        inboxes = [ServedInbox(bell, lambda stats: None, lambda: None) for _ in range(8)]
        for step in (1, 2):
            for inbox in inboxes:
                inbox.put(token(step))
            assert len(calls) == step
            assert [await inbox.get() for inbox in inboxes] == [token(step)] * 8

    asyncio.run(read())


@pytest.mark.parametrize("rung", [False, True])
def test_all_who_ring_learn_that_the_loop_is_closed(rung: bool) -> None:
    async def make() -> list[ServedInbox]:
        bell = Bell()
        inboxes = [ServedInbox(bell, lambda stats: None, lambda: None) for _ in range(3)]
        if rung:
            inboxes[2].put(token(1))  # the loop closes before it looks
        return inboxes

    for inbox in asyncio.run(make())[:2]:
        with pytest.raises(RuntimeError):
            inbox.put(token(1))


def test_an_error_of_one_request_leaves_others_their_tokens() -> None:
    async def read() -> None:
        def fail() -> None:
            raise RuntimeError("a fault of ours")

        errors: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, error: errors.append(error))
        bell = Bell()
        failing, other = (
            ServedInbox(bell, lambda stats: None, fail),
            ServedInbox(bell, print, print),
        )
        failing.expect(1)
        failing.put((0, ErrorEvent(GenerationError("gone"))))
        other.put(token(1))
        assert await asyncio.wait_for(other.get(), waiting.MOST) == token(1)
        assert len(errors) == 1

    asyncio.run(read())


def test_a_reader_who_paused_leaves_others_their_turns(model: Any, service: Service) -> None:
    model.answer = "x" * 2000

    def prepare() -> Any:
        return SimpleNamespace(jobs=model.prompt_jobs(["hi"], model.default_params()))

    async def read() -> tuple[list[int], list[int]]:
        generation = ServedGeneration(service, model, 1, asyncio.Event().wait, "")  # type: ignore[arg-type]
        await generation.start(model.submit, prepare)
        await asyncio.to_thread(model.requests[0].ended.wait)
        sizes: list[int] = []
        seen_by_another: list[int] = []

        async def another() -> None:
            while True:
                seen_by_another.append(len(sizes))
                await asyncio.sleep(0)

        task = asyncio.create_task(another())
        async for pieces in generation.pieces():
            sizes.append(len(pieces))
        task.cancel()
        generation.close()
        return sizes, seen_by_another

    sizes, seen_by_another = asyncio.run(read())
    assert sum(sizes) > 2000
    assert max(sizes) == TOGETHER_PIECES
    assert set(range(1, len(sizes))) <= set(seen_by_another)


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
        assert waiting.get(f"{server.url}/health").status_code == 200
    assert undelayed
    assert all(undelayed)
