"""The gate before every route: request ids, Host and Origin, the API key, the log line.

A page in a browser can make any site's name point at 127.0.0.1 (DNS rebinding), and can send simple
requests anywhere. So the Host must be a name of this server, and an Origin must be on the list.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_llm.server.errors import ApiError
from edge_llm.server.options import ServerOptions, ip_address, is_loopback

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN_PATHS = frozenset({"/health"})

_log = logging.getLogger(__name__)


class Gate:
    """ASGI middleware, outermost: every reply passes here, our own failures included."""

    def __init__(self, app: ASGIApp, options: ServerOptions) -> None:
        self._app = app
        self._key = None if options.api_key is None else options.api_key.encode()
        self._hosts = LOOPBACK_HOSTS | {
            host.lower() for host in (options.host, *options.allowed_hosts)
        }
        # A name can be made to point here, an address cannot: with an open bind, any address that
        # reached this server is its own.
        self._any_address = not is_loopback(options.host)
        self._origins = frozenset(origin.lower() for origin in options.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status, complete = 0, False

        async def reply(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if scope["path"].startswith("/v1/messages"):
                    headers["request-id"] = request_id  # as Anthropic's clients read it
            elif message["type"] == "http.response.body":
                complete = not message.get("more_body", False)
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, reply)
        except ApiError as error:
            await error.response(scope)(scope, receive, reply)
        except ClientDisconnect:  # before its request was read
            pass
        except Exception:
            _log.exception("request %s failed", request_id)
            # FastAPI has sent `bug_response` and raised again; in the middle of a reply only
            # closing the connection can tell.
            if not complete:
                raise
        finally:
            milliseconds = (time.perf_counter() - started) * 1000
            _log.info(
                "%s %r %d %.0f ms %s",
                scope["method"],
                scope["path"][:200],
                status,
                milliseconds,
                request_id,
            )

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = host_name(headers.get("host", ""))
        if host not in self._hosts and not (self._any_address and ip_address(host) is not None):
            raise _forbidden("This Host is not allowed (see --allowed-host).")
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in self._origins:
            raise _forbidden("This Origin is not allowed (see --allowed-origin).")
        if self._key is not None and scope["path"] not in OPEN_PATHS:
            scheme, _, key = headers.get("authorization", "").partition(" ")
            bearer = key.strip() if scheme.lower() == "bearer" else ""
            # Header bytes come as Latin-1.
            given = [key.encode("latin-1") for key in (bearer, headers.get("x-api-key", ""))]
            if not any(hmac.compare_digest(key, self._key) for key in given):
                raise ApiError(
                    401,
                    "The API key is missing or wrong. Send it as 'Authorization: Bearer KEY' (or "
                    "as 'x-api-key: KEY').",
                    code="invalid_api_key",
                    headers={"www-authenticate": "Bearer"},
                )


def host_name(header: str) -> str:
    """Return the host of a Host header, without port, brackets or a trailing dot, in lower case."""
    bracketed = header.startswith("[")
    name = header[1:].partition("]")[0] if bracketed else header.partition(":")[0]
    return name.removesuffix(".").lower()


def _forbidden(message: str) -> ApiError:
    return ApiError(403, message, kind="permission_error")
