"""The front of a cluster: an ASGI application that hands requests on to replicas."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from edge_llm.server.cluster.call import Call
from edge_llm.server.cluster.prefixes import prefix_of
from edge_llm.server.errors import ApiError, error_body, too_slow, unavailable
from edge_llm.server.options import ServerOptions

Ask = Callable[[Call], AsyncGenerator[Message, None]]
Figures = Callable[[], Awaitable[bytes]]

_log = logging.getLogger(__name__)
_LONG = 2**17  # bytes of a body from which on its prefix is found on a thread


class Front:
    """Reads a request, asks a replica, and sends on what comes back. Replicas check hosts, keys and
    fields, so that replies are those of one server; the figures alone are those of all."""

    def __init__(self, ask: Ask, figures: Figures, options: ServerOptions) -> None:
        """``ask`` sends a call to a replica and yields the messages of its reply; closing it tells
        the replica that the client has left. ``figures`` gathers ``/metrics``."""
        self._ask = ask
        self._figures = figures
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lived(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"got a scope of type {scope['type']}, expected http or lifespan")
        try:
            call = await self._read(scope, receive)
        except ApiError as error:
            await _refused(error, scope)(scope, receive, send)
            return
        if call is None:
            return
        begun = False
        leaving = asyncio.create_task(_left(receive))
        try:
            async with aclosing(self._ask(call)) as messages:
                async for message in _until(leaving, messages):
                    if not begun and call.path == "/metrics" and message["status"] == 200:
                        page = Response(await self._figures(), media_type=CONTENT_TYPE_LATEST)
                        await page(scope, receive, send)
                        return
                    begun = True
                    await send(message)
        except Exception:
            _log.exception("a replica failed")
            if begun:  # only closing the connection can tell
                raise
            failed = unavailable("The replica that had the request has failed.")
            await _refused(failed, scope)(scope, receive, send)
        finally:
            leaving.cancel()

    async def _read(self, scope: Scope, receive: Receive) -> Call | None:
        """Return the request; None if the client has left before its end.

        Raises:
            ApiError: 408, it came too slowly.
        """
        options = self._options
        body = bytearray()
        try:
            async with asyncio.timeout(options.body_seconds):
                more = True
                while more and len(body) <= options.max_body:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
        except TimeoutError:
            seconds = options.body_seconds
            raise too_slow(f"The body of the request took longer than {seconds:g} s.") from None
        data = bytes(body[: options.max_body + 1])  # a replica refuses what is longer than allowed
        path = scope["path"]
        if len(data) < _LONG:
            prefix = prefix_of(path, data)
        else:
            prefix = await asyncio.to_thread(prefix_of, path, data)
        client = scope.get("client")
        return Call(
            method=scope["method"],
            path=path,
            query=scope.get("query_string", b""),
            headers=tuple((bytes(name), bytes(value)) for name, value in scope["headers"]),
            client=None if client is None else (client[0], client[1]),
            body=data,
            prefix=prefix,
        )


async def _lived(receive: Receive, send: Send) -> None:
    """Say that there is nothing to do at the begin and at the end."""
    for event in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{event}.complete"})


async def _left(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _until(
    leaving: asyncio.Task[None], messages: AsyncIterator[Message]
) -> AsyncIterator[Message]:
    """Yield messages until there are no more, or the client leaves."""
    while True:
        coming = asyncio.ensure_future(anext(messages, None))
        try:
            await asyncio.wait((coming, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not coming.done():
                coming.cancel()
                await asyncio.wait((coming,))
        if coming.cancelled() or (message := coming.result()) is None or leaving.done():
            return
        yield message


def _refused(error: ApiError, scope: Scope) -> JSONResponse:
    return JSONResponse(error_body(error, scope["path"]), error.status, error.headers)
