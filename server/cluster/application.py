"""edge-llm behind Ray Serve: replicas that each run the engine, and fronts before them.

    serve run edge_llm.server.cluster.application:build programs=NAME no_auth=true
    serve deploy cluster.yaml        # from configs/cluster.yaml

docs/scaling.md says how, and when it pays.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import ray
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Message

from edge_llm.catalogue import find_program
from edge_llm.errors import ConfigError
from edge_llm.runner.config import DEFAULT_STEP_TOKENS, RunnerConfig
from edge_llm.runner.context import ContextPolicy
from edge_llm.runner.engine.memory import machine_memory
from edge_llm.server.app import create_app
from edge_llm.server.cluster.call import Call, replied
from edge_llm.server.cluster.figures import merged
from edge_llm.server.cluster.front import Front
from edge_llm.server.cluster.prefixes import Prefix, instance_tag
from edge_llm.server.models.pressure import relieve
from edge_llm.server.models.programs import ServedProgram, offers_of
from edge_llm.server.models.shelf import Shelf
from edge_llm.server.options import ServerOptions, check_bind
from edge_llm.server.service import Service

_ROUTER = "edge_llm.server.cluster.router:PrefixRouter"


class ClusterOptions(BaseModel):
    """The arguments of an application. ``programs`` are files or names that every node has, in one
    text with commas between them, or in a list. ``api_key_file`` is read on every node;
    without one, ``no_auth`` has to say that everyone may ask. ``threads`` are those of a replica: 0
    takes as many as Ray has given it processors (``num_cpus``). ``adapters`` are folders by name,
    for the first program. The others are those of ``edge-llm serve``."""

    model_config = ConfigDict(extra="forbid")

    programs: str | list[str]
    api_key_file: Path | None = None
    no_auth: bool = False
    allowed_hosts: list[str] = []
    allowed_origins: list[str] = []
    strict: bool = False
    threads: int = 0
    context: int | None = None
    kv_budget: int | None = None
    max_sequences: int = 8
    context_policy: ContextPolicy = "error"
    adapters: dict[str, Path] = {}

    @property
    def names(self) -> list[str]:
        """The programs, each by its name."""
        if isinstance(self.programs, list):
            return self.programs
        return [name.strip() for name in self.programs.split(",") if name.strip()]

    def server(self, instance: str = "") -> ServerOptions:
        """Return the options of one server among several.

        Raises:
            ConfigError: everyone could ask, and nobody has said so; or the key cannot be read.
        """
        key = None
        if self.api_key_file is not None:
            try:
                key = self.api_key_file.read_text().partition("\n")[0].strip()
            except (OSError, UnicodeDecodeError) as exc:
                raise ConfigError(
                    f"api_key_file {self.api_key_file} cannot be read: {exc}"
                ) from exc
        options = ServerOptions(
            host="0.0.0.0",
            api_key=key,
            no_auth=self.no_auth,
            allowed_hosts=tuple(self.allowed_hosts),
            allowed_origins=tuple(self.allowed_origins),
            strict=self.strict,
            instance=instance,
        )
        if key is None and not self.no_auth:
            raise ConfigError(
                "a cluster can be reached from other machines, and there is no API key",
                hint="set api_key_file, or no_auth to true",
            )
        check_bind(options)
        return options

    def programs_here(self, threads: int) -> list[ServedProgram]:
        """Return the program files of this node, with how they are loaded.

        Raises:
            ConfigError: none is named, or an option is out of range.
            SourceError: one is not here.
        """
        if not self.names:
            raise ConfigError("programs names no program")
        config = RunnerConfig(
            threads=self.threads or threads,
            context=self.context,
            kv_budget=self.kv_budget,
            max_sequences=self.max_sequences,
            step_tokens=max(DEFAULT_STEP_TOKENS, self.max_sequences),
            context_policy=self.context_policy,
        )
        first, *others = (find_program(name) for name in self.names)
        return [
            ServedProgram(first, replace(config, adapters=self.adapters)),
            *(ServedProgram(path, config) for path in others),
        ]


class Replica:
    """One server without sockets: its application is called with the requests of the fronts."""

    async def __init__(self, options: ClusterOptions) -> None:  # type: ignore[misc]  # Ray awaits it
        context = serve.get_replica_context()
        self.tag = instance_tag(context.replica_id.unique_id)
        processors = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
        self._options = options.server(self.tag)
        self._shelf = Shelf(
            offers_of(options.programs_here(int(processors))),
            budget=machine_memory() * 3 // 4,
            patience=self._options.load_seconds,
        )
        self._service = Service(self._shelf, max_choices=self._options.max_choices)
        self._app = create_app(self._service, self._options)
        self._relieving = asyncio.create_task(relieve(self._shelf))
        await self._shelf.load(self._shelf.offers[0])
        self._service.ready()

    async def answer(self, call: Call) -> AsyncGenerator[Message, None]:
        """Yield the messages of the reply to a request."""
        async for message in replied(self._app, call):
            yield message

    async def figures(self) -> tuple[str, bytes]:
        """Return the replica's tag and its figures."""
        headers = [(b"host", b"localhost")]
        if self._options.api_key is not None:
            headers.append((b"x-api-key", self._options.api_key.encode()))
        call = Call("GET", "/metrics", b"", tuple(headers), None, b"", Prefix())
        return self.tag, b"".join(
            [message.get("body", b"") async for message in replied(self._app, call)]
        )

    async def __del__(self) -> None:  # Ray awaits it, once
        """Stop: no request is here any more, or its time is over."""
        if not hasattr(self, "_relieving"):  # it never began
            return
        self._service.drain()
        self._service.abort()
        self._relieving.cancel()
        await asyncio.to_thread(self._service.encoders.shutdown)
        await self._shelf.close()


class Entrance:
    """A front: several share the work of reading requests and of sending tokens."""

    def __init__(self, options: ClusterOptions, replicas: DeploymentHandle) -> None:
        self._options = options.server()
        self._replicas = replicas

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return Front(self._ask, self._figures, self._options)

    async def _ask(self, call: Call) -> AsyncGenerator[Message, None]:
        reply = self._replicas.options(stream=True).answer.remote(call)
        try:
            async for message in reply:
                yield message
        finally:
            reply.cancel()  # a reply that has ended does not mind

    async def _figures(self) -> bytes:
        pages = self._replicas.broadcast("figures")
        found = await pages.results_async(timeout_s=5, return_exceptions=True)
        return merged(dict(page for page in found if isinstance(page, tuple)))


def build(options: ClusterOptions) -> Application:
    """Return the application, for ``serve run`` and for the files of ``serve deploy``.

    Raises:
        ConfigError: everyone could ask, and nobody has said so.
    """
    options.server()
    entrance = serve.deployment(name="Entrance", max_ongoing_requests=1000)(
        serve.ingress()(Entrance)
    )
    replica = serve.deployment(
        name="Replica",
        max_ongoing_requests=64,
        graceful_shutdown_timeout_s=30,
        request_router_config={"request_router_class": _ROUTER},
    )(Replica)
    return entrance.bind(options, replica.bind(options))
