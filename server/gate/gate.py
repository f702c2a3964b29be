"""The gate before every route: request ids, who may ask, HEAD and CORS, the deadline of bodies, the
log line and the figures."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_llm.server.errors import ApiError, too_slow
from edge_llm.server.gate.access import Access
from edge_llm.server.gate.exchange import Exchange, exchange_of
from edge_llm.server.options import ServerOptions

Told = Callable[[Scope, Exchange], None]

_log = logging.getLogger(__name__)


class Gate:
    """ASGI middleware, outermost: every reply passes here, our own failures included."""

    def __init__(self, app: ASGIApp, options: ServerOptions, on_end: Told) -> None:
        """Let requests through to ``app``; ``on_end`` is told of each when it has ended."""
        self._app = app
        self._options = options
        self._access = Access(options)
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # One that routing may write to. HEAD is GET without its body.
        inner = dict(scope, method="GET" if scope["method"] == "HEAD" else scope["method"])
        exchange = exchange_of(inner)
        inner["state"] = {**scope.get("state", {}), "request_id": exchange.id}
        headers = Headers(scope=scope)
        guarded = self._deadline(exchange, receive)
        reply = self._reply(scope, headers, exchange, send)
        try:
            self._access.check_place(headers)
            told = self._access.origins.preflight_headers(headers)
            if scope["method"] == "OPTIONS" and told is not None:
                await Response(status_code=204, headers=told)(inner, guarded, reply)
                return
            self._access.check_key(scope["path"], headers)
            await self._app(inner, guarded, reply)
        except ApiError as error:
            await error.response(inner)(inner, guarded, reply)
        except ClientDisconnect:  # before its request was read
            exchange.gone = True
        except Exception:
            _log.exception("request %s failed", exchange.id)
            # FastAPI has sent `bug_response` and raised again; in the middle of a reply only
            # closing the connection can tell.
            if not exchange.complete:
                raise
        finally:
            self._end(scope, inner, exchange)

    def _deadline(self, exchange: Exchange, receive: Receive) -> Receive:
        """Return ``receive`` with an end to waiting for the body of the request."""
        seconds = self._options.body_seconds
        deadline = asyncio.get_running_loop().time() + seconds
        read = False

        async def guarded() -> Message:
            nonlocal read
            if read:
                message = await receive()
            else:
                try:
                    async with asyncio.timeout_at(deadline):
                        message = await receive()
                except TimeoutError:
                    raise too_slow(
                        f"The body of the request took longer than {seconds:g} s."
                    ) from None
                read = not message.get("more_body", False)
            if message["type"] == "http.disconnect" and not exchange.complete:
                exchange.gone = True
            return message

        return guarded

    def _reply(self, scope: Scope, headers: Headers, exchange: Exchange, send: Send) -> Send:
        """Return ``send`` with our headers, and notes of what is sent."""
        head = scope["method"] == "HEAD"

        async def reply(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                own = MutableHeaders(scope=message)
                own["x-request-id"] = exchange.id
                if scope["path"].startswith("/v1/messages"):
                    own["request-id"] = exchange.id  # as Anthropic's clients read it
                own.add_vary_header("Origin")
                if self._access.origins.allows(headers) and exchange.status != 403:
                    own.update(self._access.origins.reply_headers(headers))
                if "GET" in own.get("allow", "").split(", ") and "HEAD" not in own["allow"]:
                    own["allow"] += ", HEAD"
            elif message["type"] == "http.response.body":
                if head:
                    message = {**message, "body": b""}
                await send(message)
                exchange.complete = not (message.get("more_body", False) or exchange.gone)
                return
            await send(message)

        return reply

    def _end(self, scope: Scope, inner: Scope, exchange: Exchange) -> None:
        error = exchange.failure
        broken = "" if error is None else f", failed after it began: {error.message}"
        _log.info(
            "%s %r %d %.0f ms %s%s",
            scope["method"],
            scope["path"][:200],
            exchange.outcome,
            (time.perf_counter() - exchange.started) * 1000,
            exchange.id,
            broken,
        )
        self._on_end(inner, exchange)
