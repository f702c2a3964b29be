"""A request on its way from the front of a cluster to one of its replicas, and its reply on the way
back: what an ASGI application is called with, in a form that another process can be sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Scope

from edge_llm.server.cluster.prefixes import Prefix

_AHEAD = 32  # messages of a reply that wait for a slow client
_GRACE = 5.0  # seconds for an application to end by itself, once its client has left


@dataclass(frozen=True, slots=True)
class Call:
    """A request. ``prefix`` tells what its text begins with, for the router. ``body`` may be cut
    behind the most that the application takes, whose error is the same then."""

    method: str
    path: str
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    client: tuple[str, int] | None
    body: bytes
    prefix: Prefix

    def scope(self) -> Scope:
        """Return the ASGI scope, a new one."""
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "http",
            "method": self.method,
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": self.query,
            "root_path": "",
            "headers": list(self.headers),
            "client": self.client,
            "server": None,
            "state": {},
        }


async def replied(app: ASGIApp, call: Call) -> AsyncGenerator[Message, None]:
    """Call ``app`` and yield the messages of its reply, ``http.response.start`` first. A consumer
    that stops before the end is a client that left: the application is told so.

    Raises:
        Exception: whatever ``app`` raises.
    """
    messages: asyncio.Queue[Message | None] = asyncio.Queue(_AHEAD)
    left = asyncio.Event()
    read = False

    async def receive() -> Message:
        nonlocal read
        if not read:
            read = True
            return {"type": "http.request", "body": call.body, "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if left.is_set():
            raise OSError("the client has left")
        await messages.put(message)

    async def work() -> None:
        try:
            await app(call.scope(), receive, send)
        finally:
            if not left.is_set():
                await messages.put(None)

    working = asyncio.create_task(work())
    try:
        while (message := await messages.get()) is not None:
            yield message
        await working
    finally:
        left.set()
        while not messages.empty():  # so that no `send` waits
            messages.get_nowait()
        if not working.done():
            await asyncio.wait((working,), timeout=_GRACE)
            working.cancel()
