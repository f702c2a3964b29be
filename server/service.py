"""The one model that is served, and whether it can take requests now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol

from edge_llm.api.about import ModelAbout
from edge_llm.api.chat import ChatCall
from edge_llm.api.embeddings import EmbedCall, EmbedJob
from edge_llm.api.rerank import JudgeJob, RerankCall, RerankJob
from edge_llm.runner.engine.statistics import EngineStatistics, RequestStatistics
from edge_llm.runner.generation.loop import Inbox, Job, Submit
from edge_llm.runner.generation.vectors import Vectors
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.runner.sampling import SamplingParams
from edge_llm.server.errors import ApiError, invalid, overloaded, unavailable, unknown_model
from edge_llm.tokenizers.tokenizer import Tokenizer


class Model(Protocol):
    """The part of `edge_llm.api.LLM` that the server needs."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def context(self) -> int: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def about(self) -> ModelAbout: ...

    def default_params(self, **overrides: Any) -> SamplingParams: ...

    def chat_jobs(
        self, call: ChatCall, params: SamplingParams, n: int | None = None
    ) -> list[Job]: ...

    def guided(self, jobs: Iterable[Job], grammar: Grammar, param: str) -> list[Job]: ...

    @property
    def submit(self) -> Submit: ...

    def embed_job(self, call: EmbedCall) -> EmbedJob: ...

    def rerank_job(self, call: RerankCall) -> RerankJob: ...

    def vectors(self, job: EmbedJob | JudgeJob, inbox: Inbox) -> Vectors: ...

    def stats(self) -> EngineStatistics: ...


class Abortable(Protocol):
    """A request of ours that a stopping server can end."""

    def abort(self) -> None: ...


# Threads that encode texts: one long text must not keep the short ones waiting.
ENCODERS = 2

State = Literal["loading", "ready", "draining"]


class Service:
    """The served model and the requests that run. It begins as "loading"; `ready` and `drain` move
    it on. Used on the event loop's thread."""

    def __init__(self, *, max_choices: int) -> None:
        self.state: State = "loading"
        self.created = int(time.time())
        self.encoders = ThreadPoolExecutor(ENCODERS, thread_name_prefix="edge-llm-encoder")
        self._max_choices = max_choices
        self._model: Model | None = None
        self._names: list[str] = []
        self._active: dict[Abortable, int] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        # Told of each answer that the engine has ended.
        self.on_answer: Callable[[RequestStatistics], None] = lambda stats: None

    def ready(self, model: Model, *, aliases: Iterable[str] = ()) -> None:
        """Serve ``model`` under its own name and ``aliases``."""
        self._model = model
        self._names = list(dict.fromkeys([model.name, *aliases]))
        if self.state == "loading":
            self.state = "ready"

    def drain(self) -> None:
        """Take no more requests; those that run go on."""
        self.state = "draining"

    def abort(self) -> None:
        """End the requests that still run."""
        for request in list(self._active):
            request.abort()

    @property
    def requests(self) -> int:
        """The number of requests that run or wait, from before their texts are encoded."""
        return len(self._active)

    @property
    def choices(self) -> int:
        """The number of answers that they ask for."""
        return sum(self._active.values())

    def model(self, name: str | None = None) -> Model:
        """Return the model, by one of its names.

        Raises:
            ApiError: 503 while loading or draining, 404 if ``name`` is not served.
        """
        if self._model is None:
            raise unavailable("The model is loading.")
        if self.state == "draining":
            raise _stopping()
        if name is not None and name not in self._names:
            raise unknown_model(name, self._names)
        return self._model

    def enter(self, request: Abortable, choices: int) -> None:
        """Count a request of so many ``choices`` in, until `leave`.

        Raises:
            ApiError: 429 if too many run or wait, 400 if it asks for more than ever may, 503 if the
                server began to stop meanwhile.
        """
        if self.state == "draining":
            raise _stopping()
        if choices > self._max_choices:
            raise invalid(
                f"Invalid 'n': {choices} choices are asked for, at most {self._max_choices} are "
                "allowed.",
                "n",
                "integer_above_max_value",
            )
        if self.choices + choices > self._max_choices:
            raise overloaded()
        self._active[request] = choices
        self._empty.clear()

    def leave(self, request: Abortable) -> None:
        """Count it out; more than once is fine."""
        self._active.pop(request, None)
        if not self._active:
            self._empty.set()

    async def emptied(self) -> None:
        """Wait until no request runs or waits."""
        await self._empty.wait()

    def engine_statistics(self) -> EngineStatistics | None:
        """Return the engine's figures, None where there is no engine now."""
        return None if self._model is None or self.state != "ready" else self._model.stats()


def _stopping() -> ApiError:
    return unavailable("The server is stopping.")
