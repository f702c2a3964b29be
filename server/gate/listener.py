"""The listening socket: it takes connections, as many as there may be, and ends them."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from email.utils import formatdate
from typing import cast

from starlette.types import ASGIApp
from uvicorn.server import ServerState

from edge_llm.server.gate.connection import Connection, connection_config
from edge_llm.server.options import ServerOptions

# Connections beyond the bound that are taken only to be told so; still more wait in the backlog.
CROWD = 64
POLL_SECONDS = 0.05
RETRY_SECONDS = 1.0  # after the system had no room for a connection
_FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_log = logging.getLogger(__name__)


class Listener:
    """Serves an application on a socket, from `listen` to `close`. Used on one event loop."""

    def __init__(self, app: ASGIApp, options: ServerOptions) -> None:
        self._options = options
        self._config = connection_config(app, options)
        self._state = ServerState()
        self._tasks: list[asyncio.Task[None]] = []

    def listen(self, listener: socket.socket) -> None:
        """Begin to take connections from ``listener``, which stays the caller's."""
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._accept(listener)), loop.create_task(self._watch())]

    def stop(self, listener: socket.socket) -> None:
        """Take no more connections, and end those that are idle; the others end after their
        reply."""
        self._tasks[0].cancel()
        listener.close()
        for connection in list(self._open):
            connection.shutdown()

    async def close(self, seconds: float) -> None:
        """Wait for the replies that are still being sent, so long; then end them."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (self._open or self._state.tasks) and loop.time() < deadline:
            await asyncio.sleep(0.01)
        for connection in list(self._open):
            connection.transport.abort()
        for task in list(self._state.tasks):
            task.cancel()
        for own in self._tasks:
            own.cancel()
        await asyncio.gather(*self._tasks, *self._state.tasks, return_exceptions=True)

    @property
    def _open(self) -> set[Connection]:
        return cast("set[Connection]", self._state.connections)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while len(self._open) >= self._options.max_connections + CROWD:
                await asyncio.sleep(POLL_SECONDS)
            try:
                accepted, _ = await loop.sock_accept(listener)
            except OSError as exc:
                if exc.errno in _FULL:
                    _log.error("no more connections can be taken now: %s", exc.strerror)
                    self._make_room()
                    await asyncio.sleep(RETRY_SECONDS)
                continue  # else the client has gone already
            try:
                # A token is sent when it comes, not when the client has answered for the last one,
                # which takes it 40 ms. asyncio does so for sockets that name their protocol alone.
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await loop.connect_accepted_socket(self._connection, accepted)
            except OSError:
                accepted.close()

    def _connection(self) -> Connection:
        full = len(self._open) >= self._options.max_connections
        connection = Connection(self._options, self._config, self._state)
        connection.crowded = full and not self._make_room()
        return connection

    def _make_room(self) -> bool:
        """End the connection that is idle for the longest time; return False if none is."""
        idle = [
            (since, connection)
            for connection in self._open
            if (since := connection.idle_since) is not None
            and not connection.transport.is_closing()
        ]
        if idle:
            min(idle, key=lambda pair: pair[0])[1].transport.abort()
        return bool(idle)

    async def _watch(self) -> None:
        options = self._options
        shortest = min(
            options.header_seconds, options.body_seconds, options.idle_seconds, options.send_seconds
        )
        loop = asyncio.get_running_loop()
        while True:
            self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
            for connection in list(self._open):
                connection.check(loop.time())
            await asyncio.sleep(min(1.0, shortest / 4))
