"""The server as a process: bind, load, serve, and stop in good order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from edge_llm.api import LLM
from edge_llm.api.loading import load_with
from edge_llm.errors import ConfigError
from edge_llm.runner.config import RunnerConfig
from edge_llm.server.app import create_app
from edge_llm.server.options import ServerOptions, check_bind
from edge_llm.server.service import Service

# How long a client may take to read the end of its stream once the server wants to go.
FLUSH_SECONDS = 3

_log = logging.getLogger(__name__)


def serve(path: str | Path, options: ServerOptions, config: RunnerConfig | None = None) -> None:
    """Serve a program file until SIGTERM or SIGINT: no more requests are taken, those that run
    have ``options.drain_seconds`` to end, then their streams end with an error event. A second
    signal ends them at once. With port 0 the chosen address goes to stdout as one line of JSON, as
    soon as requests are taken.

    Raises:
        ConfigError: the address cannot be bound, or would be open to others without a key.
        EdgeLLMError: the program cannot be loaded; see `edge_llm.load`.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    check_bind(options)

    def load_model() -> LLM:
        return load_with(path, config or RunnerConfig())

    with bind(options) as listener:
        url = address(options.host, listener)

        def announce(model: LLM) -> None:
            _log.info("serving %s at %s", model.name, url)
            if options.port == 0:
                print(json.dumps({"url": url, "model": model.name}), flush=True)

        asyncio.run(run(load_model, (Path(path).stem,), options, listener, announce, Stop()))


class Stop:
    """A request to stop: the first time in good order, the second time now."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.now = asyncio.Event()

    def __call__(self) -> None:
        (self.now if self.asked.is_set() else self.asked).set()


async def run(
    load_model: Callable[[], LLM],
    aliases: tuple[str, ...],
    options: ServerOptions,
    listener: socket.socket,
    announce: Callable[[LLM], None],
    stop: Stop,
) -> None:
    """Serve on ``listener`` until ``stop`` is called; /health answers 503 while the model loads.

    Raises:
        EdgeLLMError: the model could not be loaded.
    """
    service = Service(max_choices=options.max_choices)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(service, options),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=int(options.drain_seconds) + FLUSH_SECONDS,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not (server.started or serving.done()):
        await asyncio.sleep(0.005)
    # After uvicorn's own handlers, which know neither draining nor our streams.
    with contextlib.suppress(NotImplementedError, RuntimeError):  # Windows; not the main thread
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        model = await asyncio.to_thread(load_model)
        try:
            service.ready(model, aliases=aliases)
            announce(model)
            await stop.asked.wait()
        finally:
            service.drain()
            server.should_exit = True
            await _drain(service, serving, options.drain_seconds, stop)
            await asyncio.to_thread(model.close)
    finally:
        server.should_exit = True
        await serving


async def _drain(service: Service, serving: asyncio.Task[None], seconds: float, stop: Stop) -> None:
    now = asyncio.create_task(stop.now.wait())
    await asyncio.wait({serving, now}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    now.cancel()
    service.abort()
    await serving


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
            f"cannot listen on {options.host} port {options.port}: {exc.strerror or exc}"
        ) from exc


def address(host: str, listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
