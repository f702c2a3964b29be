"""One connection: uvicorn's protocol, with deadlines, our errors, and for half-closed clients too.

uvicorn gives a connection up at the end of what the client sends, and waits for ever for one that
sends or reads nothing. Here a request that is complete is answered also when its client sends no
more, as HTTP has it, and every wait has an end. How to tell that a client is gone altogether: the
answer to bytes for nobody is a reset of the connection, so a byte or two are sent that mean
nothing.
"""

from __future__ import annotations

import json
import logging
import secrets
import socket
import sys
from typing import Any

import h11
from h11._writers import ChunkedWriter
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from edge_llm.server.errors import ApiError, error_body, invalid, too_many_connections, too_slow
from edge_llm.server.options import ServerOptions

POLL_SECONDS = 0.05  # between two looks at whether a client that sends no more is gone
LINGER_SECONDS = 2.0  # for a client that still sends what will not be read

_log = logging.getLogger(__name__)


class Connection(H11Protocol):
    """Attributes:
    crowded: there are too many connections: this one is told so, whatever it asks.
    """

    def __init__(self, options: ServerOptions, config: Config, state: ServerState) -> None:
        super().__init__(config, state, {})
        self._options = options
        self.crowded = False
        self._idle_since = self.loop.time()  # or since the last byte of a reply was handed over
        self._head_since: float | None = None  # bytes of a request are there, but not its head
        self._full_since: float | None = None  # the client does not read
        self._deaf_since: float | None = None  # nothing more is read, and the end was sent
        self._half_closed = False

    @property
    def busy(self) -> bool:
        """Whether a request is being read or answered."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def idle_since(self) -> float | None:
        """The time (of the loop) since which there is neither a request nor a part of one, None if
        there is."""
        quiet = not self.busy and self._head_since is None and self._deaf_since is None
        return self._idle_since if quiet else None

    def data_received(self, data: bytes) -> None:
        if self._deaf_since is not None:
            return
        if self.crowded:
            self._refuse(too_many_connections())
            return
        if self._head_since is None and self.conn.their_state is h11.IDLE:
            self._head_since = self.loop.time()
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._head_since = None

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keep the connection if an answer is due and there is a way to see that nobody waits."""
        complete = self.conn.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)
        if not (self.busy and complete and self._probe()):
            return False
        self._half_closed = True
        self.loop.call_later(POLL_SECONDS, self._poll)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._full_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._full_since = None

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()  # may begin with the next request
        if self._half_closed and not self.busy:
            self.transport.close()

    def shutdown(self) -> None:
        if self._deaf_since is None:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; called where the parser's error is handled."""
        error = sys.exc_info()[1]
        status = getattr(error, "error_status_hint", 400)
        self._refuse(ApiError(status, msg) if status != 400 else invalid(msg))

    def check(self, now: float) -> None:
        """End what has taken too long; called every now and then."""
        options = self._options
        unsent = self.transport.get_write_buffer_size() > 0
        if self._deaf_since is not None:
            if now - self._deaf_since > LINGER_SECONDS:
                self.transport.abort()
        elif self._full_since is not None:
            if now - self._full_since > options.send_seconds:
                _log.info("a client does not read its reply: the connection is closed")
                self.transport.abort()
        elif self.busy:
            return  # the gate has deadlines of its own for bodies
        elif unsent or self.transport.is_closing():
            if now - self._idle_since > options.send_seconds:
                self.transport.abort()
        elif self.conn.their_state is h11.SEND_BODY:  # answered before it was read
            if now - self._idle_since > LINGER_SECONDS:
                self.transport.abort()
        elif self._head_since is not None:
            if now - self._head_since > options.header_seconds:
                self._refuse(
                    too_slow(f"The request took longer than {options.header_seconds:g} s.")
                )
        elif now - self._idle_since > options.idle_seconds:
            self.transport.close()

    def _refuse(self, error: ApiError) -> None:
        """Send an error, and read no more."""
        request_id = f"req_{secrets.token_hex(12)}"
        _log.info("a connection is refused: %d %s", error.status, request_id)
        if self.cycle is not None and not self.cycle.response_complete:
            started = self.cycle.response_started
            self.cycle.disconnected = True  # nobody may write here any more
            self.cycle.message_event.set()
            if started:
                self.transport.abort()
                return
        body = json.dumps(error_body(error, request_id=request_id)).encode()
        headers: dict[str, str] = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            "x-request-id": request_id,
            **error.headers,
        }
        listed = [*self.server_state.default_headers]
        listed += [(name.encode(), value.encode()) for name, value in headers.items()]
        try:
            head = self.conn.send(h11.Response(status_code=error.status, headers=listed)) or b""
            head += self.conn.send(h11.Data(data=body)) or b""
        except h11.LocalProtocolError:  # a reply is under way already
            self.transport.abort()
            return
        self.transport.write(head)
        # Not closed yet: the system would answer what is still on its way with a reset, by which
        # the client may lose the reply.
        self._deaf_since = self.loop.time()
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _probe(self) -> bool:
        """Send something that means nothing; return False if there is no such thing."""
        if self.scope["http_version"] != "1.1":
            return False
        if not self.cycle.response_started:
            self.cycle.waiting_for_100_continue = False
            event = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            self.transport.write(self.conn.send(event) or b"")
        elif isinstance(getattr(self.conn, "_writer", None), ChunkedWriter):
            self.transport.write(b"0")  # in front of the next chunk's size
        return True

    def _poll(self) -> None:
        if self.transport.is_closing() or not self.busy:
            return
        peer: Any = self.transport.get_extra_info("socket")
        if peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        else:
            self.loop.call_later(POLL_SECONDS, self._poll)


def connection_config(app: Any, options: ServerOptions) -> Config:
    """Return uvicorn's configuration of connections to ``app``."""
    config = Config(
        app,
        http=H11Protocol,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=int(options.idle_seconds) + 1,  # ours comes first
    )
    config.load()
    return config
