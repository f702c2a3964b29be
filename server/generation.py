"""One generator behind every reply: the choices of a request, as they grow.

Streamed or not, chat or legacy: a route turns prompts into `Job`s, reads `Delta`s, and writes them
down in its own shape. Engine callbacks come on the engine's thread and only hand events over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from starlette.types import Receive

from edge_llm.runner.events import ErrorEvent, Event, FinishEvent, PromptEvent, TokenEvent
from edge_llm.runner.executor import TokenLogprobs
from edge_llm.runner.sampling import SamplingParams
from edge_llm.runner.statistics import RequestStatistics
from edge_llm.server.errors import unavailable
from edge_llm.server.service import Handle, Model, Service
from edge_llm.tokenizers.stream import TextStream


@dataclass(frozen=True, slots=True)
class Job:
    """One choice: what to continue and how. ``stop``: strings that end it. ``answers``: the text
    is one of its own, not the rest of the prompt's."""

    prompt_ids: Sequence[int]
    params: SamplingParams
    stop: tuple[str, ...] = ()
    answers: bool = False


@dataclass(frozen=True, slots=True)
class Delta:
    """What one choice grew by. ``token`` and ``logprobs``: the id behind it. The last delta has no
    id, but ``finish_reason`` ("stop" or "length") and ``stats``. If the prompt's log-probabilities
    were asked for, the first delta has them as ``prompt``, one an id, and nothing else."""

    choice: int
    text: str
    token: int | None = None
    logprobs: TokenLogprobs | None = None
    finish_reason: str | None = None
    stats: RequestStatistics | None = None
    prompt: tuple[TokenLogprobs | None, ...] | None = None


class ClientGoneError(Exception):
    """The client hung up: nobody will read a reply."""


class Generation:
    """The choices of one HTTP request. Use `start`, read `deltas`, and `close` in any case.

    ``receive`` is watched for the client's hanging up, in every phase, reply begun or not."""

    def __init__(self, service: Service, model: Model, jobs: Sequence[Job]) -> None:
        self._service = service
        self._model = model
        self._jobs = jobs
        self._texts = [
            TextStream(model.tokenizer, job.stop, after=() if job.answers else job.prompt_ids)
            for job in jobs
        ]
        self._counts = [0] * len(jobs)
        self._handles: list[Handle] = []
        self._events: asyncio.Queue[tuple[int, Event] | Exception] = asyncio.Queue()
        self._watcher: asyncio.Task[None] | None = None

    def start(self, receive: Receive) -> None:
        """Submits all jobs.

        Raises:
            ApiError: 429 if too many requests run or wait.
            EdgeLLMError: the engine refused a job; none runs then.
        """
        self._service.enter(self)
        try:
            loop = asyncio.get_running_loop()
            for choice, job in enumerate(self._jobs):
                callback = _Callback(loop, self._events, choice)
                self._handles.append(self._model.submit(job.prompt_ids, job.params, callback))
        except BaseException:
            self.close()
            raise
        self._watcher = loop.create_task(self._watch(receive))

    async def deltas(self) -> AsyncGenerator[Delta]:
        """All choices' deltas, in the order in which they come.

        Raises:
            EdgeLLMError: a choice failed.
            ApiError: the server is stopping.
            ClientGoneError: the client hung up.
        """
        running = len(self._jobs)
        while running:
            item = await self._events.get()
            if isinstance(item, Exception):
                raise item
            choice, event = item
            match event:
                case TokenEvent(token, logprobs):
                    if (delta := self._push(choice, token, logprobs)) is not None:
                        yield delta
                case PromptEvent(scores):
                    yield Delta(choice, "", prompt=scores)
                case FinishEvent(reason, stats):
                    running -= 1
                    yield self._finish(choice, reason, stats)
                case ErrorEvent(error):
                    raise error

    def abort(self) -> None:
        """Ends it with an error, from the event loop's thread."""
        self._cancel()
        self._events.put_nowait(unavailable("The server is stopping."))

    def close(self) -> None:
        """Cancels what still runs and lets go of everything; more than once is fine."""
        self._release()
        if self._watcher is not None:
            self._watcher.cancel()

    def _push(self, choice: int, token: int, logprobs: TokenLogprobs | None) -> Delta | None:
        text = self._texts[choice]
        if text.stopped:  # sampled before the engine saw the cancellation
            return None
        self._counts[choice] += 1
        delta = text.push(token)
        if text.stopped:
            self._handles[choice].cancel()
        return Delta(choice, delta, token, logprobs)

    def _finish(self, choice: int, reason: str, stats: RequestStatistics) -> Delta:
        text = self._texts[choice]
        rest = text.finish()
        return Delta(
            choice,
            rest,
            finish_reason="stop" if text.stopped else reason,
            stats=replace(stats, completion_tokens=self._counts[choice]),
        )

    def _release(self) -> None:
        self._cancel()
        self._service.leave(self)

    def _cancel(self) -> None:
        for handle in self._handles:
            handle.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        # Here and not in the reader alone: a stream may be dropped before it is read at all.
        self._release()
        self._events.put_nowait(ClientGoneError())


@dataclass(frozen=True, slots=True)
class _Callback:
    """Hands an engine's event to the event loop, without waiting."""

    loop: asyncio.AbstractEventLoop
    events: asyncio.Queue[tuple[int, Event] | Exception]
    choice: int

    def __call__(self, event: Event) -> None:
        try:
            self.loop.call_soon_threadsafe(self.events.put_nowait, (self.choice, event))
        except RuntimeError:
            # The loop was closed under a request that still ran: nobody is left to tell.
            if not self.loop.is_closed():
                raise
