"""The server as a process: bind, load, serve, and stop in good order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence

from edge_llm.errors import ConfigError
from edge_llm.server.app import create_app
from edge_llm.server.gate.listener import Listener
from edge_llm.server.models.offer import Offer, choices_of
from edge_llm.server.models.pressure import relieve
from edge_llm.server.models.programs import ServedProgram, offers_of
from edge_llm.server.models.shelf import Shelf
from edge_llm.server.options import ServerOptions, check_bind
from edge_llm.server.service import Service

# How long a client may take to read the end of its reply once the server wants to go.
FLUSH_SECONDS = 2.0

_TAKEN = "another process has the port, another `edge-llm serve` perhaps; take another --port"

_log = logging.getLogger(__name__)


def serve(programs: Sequence[ServedProgram], options: ServerOptions) -> None:
    """Serve program files until SIGTERM or SIGINT: no more requests are taken, those that run
    have ``options.drain_seconds`` to end, then their streams end with an error event. A second
    signal ends them at once. With port 0 the chosen address goes to stdout as one line of JSON, as
    soon as requests are taken.

    The first program is loaded at once, as are those that are pinned; the others when they are
    asked for.

    Raises:
        ConfigError: the address cannot be bound, or would be open to others without a key.
        EdgeLLMError: a program cannot be loaded; see `edge_llm.load`.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # the gate says what is to be said
    check_bind(options)
    offers = offers_of(
        programs, aliases=options.aliases, pinned=options.pinned, keep=options.keep_seconds
    )

    with bind(options) as listener:
        url = address(options.host, listener)

        def announce(offers: Sequence[Offer]) -> None:
            names = [choice.name for offer in offers for choice in choices_of(offer)]
            _log.info("serving %s at %s (in a browser: %s/)", ", ".join(names), url, url)
            if options.port == 0:
                print(json.dumps({"url": url, "model": names[0], "models": names}), flush=True)

        asyncio.run(run(offers, options, listener, announce, Stop()))


class Stop:
    """A request to stop: the first time in good order, the second time now."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.now = asyncio.Event()

    def __call__(self) -> None:
        (self.now if self.asked.is_set() else self.asked).set()


async def run(
    offers: Sequence[Offer],
    options: ServerOptions,
    listener: socket.socket,
    announce: Callable[[Sequence[Offer]], None],
    stop: Stop,
) -> None:
    """Serve on ``listener`` until ``stop`` is called; /health answers 503 while the models that are
    to be there from the beginning load.

    Raises:
        EdgeLLMError: one of them could not be loaded.
    """
    shelf = Shelf(offers, budget=options.memory, patience=options.load_seconds)
    service = Service(shelf, max_choices=options.max_choices)
    door = Listener(create_app(service, options), options)
    door.listen(listener)
    with contextlib.suppress(NotImplementedError, RuntimeError):  # Windows; not the main thread
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop)
    relieving = asyncio.create_task(relieve(shelf))
    try:
        try:
            if await _begun(shelf, stop):
                service.ready()
                announce(offers)
                await stop.asked.wait()
        finally:
            service.drain()
            door.stop(listener)
            await _drained(service, options.drain_seconds, stop)
            service.abort()
            await door.close(FLUSH_SECONDS)
            await asyncio.to_thread(service.encoders.shutdown)
            relieving.cancel()
            await shelf.close()
    finally:
        await door.close(0)


async def _begun(shelf: Shelf, stop: Stop) -> bool:
    """Load what is to be there from the beginning; return False if ``stop`` was called first.

    Raises:
        EdgeLLMError: a model cannot be loaded.
    """
    stopping = asyncio.create_task(stop.asked.wait())
    try:
        for offer in shelf.offers:
            if offer.pinned or offer is shelf.offers[0]:
                loading = asyncio.create_task(shelf.load(offer))
                await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    loading.cancel()
                    return False
                await loading
        return True
    finally:
        stopping.cancel()


async def _drained(service: Service, seconds: float, stop: Stop) -> None:
    """Wait until all requests have ended, for some seconds, or until ``stop`` is called again."""
    if service.requests:
        _log.info(
            "stopping: waiting for %s, at most %g seconds; a second Ctrl-C ends them at once",
            f"{service.requests} request{'' if service.requests == 1 else 's'}",
            seconds,
        )
    waits = [asyncio.create_task(wait) for wait in (service.emptied(), stop.now.wait())]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def bind(options: ServerOptions) -> socket.socket:
    """Return a listening socket.

    Raises:
        ConfigError: the address is taken or is none of this machine.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server((options.host, options.port), family=family, backlog=128)
    except OSError as exc:
        raise ConfigError(
            f"cannot listen on {options.host} port {options.port}: {_reason(exc)}",
            hint=_TAKEN if exc.errno == errno.EADDRINUSE else None,
        ) from exc


def _reason(error: OSError) -> str:
    """Return why in short; `socket` writes the address into an error once more."""
    if error.errno is None or isinstance(error, socket.gaierror):  # whose numbers are others
        return str(error.strerror or error)
    return os.strerror(error.errno)


def address(host: str, listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
