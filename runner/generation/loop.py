"""The one generation loop: from prompts to the pieces of their answers.

Everything that generates text goes through here: the Python API, its asynchronous twins and the
server; streamed or whole, one prompt or several, one answer each or ``n``. The engine tells about
tokens on its own thread; an inbox hands them to whoever reads, who either awaits or blocks. Here
tokens become text, stop strings and control tokens go, and figures are brought up to date.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from edge_llm.errors import GenerationError, RequestError
from edge_llm.parsed import Parser
from edge_llm.runner.context import ContextReport
from edge_llm.runner.engine.constraints import Constraint
from edge_llm.runner.engine.events import ErrorEvent, EventCallback
from edge_llm.runner.engine.processors import LogitsProcessor
from edge_llm.runner.generation.answer import (
    Answer,
    Completion,
    Decoder,
    Piece,
    ShowSpecials,
    joined,
)
from edge_llm.runner.generation.inbox import BlockingInbox, Inbox, tell
from edge_llm.runner.generation.stops import StopScanner, StopStrings
from edge_llm.runner.sampling import SamplingParams

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Job:
    """One answer to generate: what it continues, and how. ``processors`` change the logits;
    ``adapter`` is the name of one that is loaded;
    ``decoder``, ``parser`` and ``constraint`` have a state and serve one job; without a parser,
    control tokens are hidden unless ``params`` says otherwise, and without a constraint anything
    may be sampled. ``report`` says what was left out of the prompt."""

    prompt_ids: Sequence[int]
    params: SamplingParams
    decoder: Decoder
    parser: Parser | None = None
    constraint: Constraint | None = None
    processors: tuple[LogitsProcessor, ...] = ()
    report: ContextReport | None = None
    adapter: str | None = None


class Handle(Protocol):
    """A request that was submitted."""

    def cancel(self) -> None: ...


class Submit(Protocol):
    """`Engine.submit`, or what does as it does."""

    def __call__(
        self,
        prompt_ids: Iterable[int],
        params: SamplingParams,
        on_event: EventCallback,
        /,
        *,
        constraint: Constraint | None,
        processors: tuple[LogitsProcessor, ...] = (),
        adapter: str | None = None,
        client: str = "",
    ) -> Handle: ...


class Generation:
    """The answers to some prompts, as they grow. Read `next` until it gives None, or `completions`,
    and `close` in any case."""

    def __init__(self, submit: Submit, jobs: Iterable[Job], inbox: Inbox) -> None:
        """Submit all jobs; if one is refused, none runs.

        Raises:
            EdgeLLMError: as `Engine.submit`.
        """
        self._inbox = inbox
        self._process = os.getpid()
        self._answers: list[Answer] = []
        self._handles: list[Handle] = []
        self._running = 0
        stops: dict[tuple[str, ...], StopStrings] = {}  # prepared once, whatever n
        try:
            for choice, job in enumerate(jobs):
                params = job.params
                if params.stop not in stops:
                    stops[params.stop] = StopStrings(params.stop)
                scanner = StopScanner(
                    stops[params.stop], included=params.include_stop_str_in_output
                )
                parser = job.parser or (None if params.skip_special_tokens else ShowSpecials())
                self._answers.append(
                    Answer(choice, job.decoder, parser, scanner, params.min_tokens, job.report)
                )
                on_event = partial(tell, inbox, choice)
                more: dict[str, Any] = {"processors": job.processors} if job.processors else {}
                if job.adapter is not None:
                    more["adapter"] = job.adapter
                self._handles.append(
                    submit(job.prompt_ids, params, on_event, constraint=job.constraint, **more)
                )
        except BaseException:
            self.cancel()
            raise
        self._running = len(self._answers)

    async def next(self) -> Piece | None:
        """Return the next piece of any answer, None after the last. An error, and whatever else
        ends the waiting, ends all answers.

        Raises:
            EdgeLLMError: an answer failed.
            GenerationError: it was begun in the process that this one was forked from.
            Exception: what `fail` was given.
        """
        try:
            return await self._next()
        except BaseException:
            self.close()
            raise

    async def _next(self) -> Piece | None:
        if os.getpid() != self._process:  # no engine's thread is here to fill the inbox
            raise GenerationError(
                f"this answer was begun in process {self._process} and this is process "
                f"{os.getpid()}, forked from it"
            )
        while self._running > 0:  # below where it was closed while it waited for the last
            item = await self._inbox.get()
            if isinstance(item, Exception):
                raise item
            choice, event = item
            if isinstance(event, ErrorEvent):
                raise event.error
            answer = self._answers[choice]
            ended = answer.stopped
            piece = answer.take(event)
            if answer.stopped and not ended:
                self._handles[choice].cancel()
            if piece is not None:
                self._running -= piece.finish_reason is not None
                return piece
        return None

    async def completions(self, ended: Callable[[], None] | None = None) -> list[Completion]:
        """Return all answers, whole; ``ended`` is called as each of them ends. Raises as `next`."""
        pieces: list[list[Piece]] = [[] for _ in self._answers]
        while (piece := await self.next()) is not None:
            pieces[piece.choice].append(piece)
            if piece.finish_reason is not None and ended is not None:
                ended()
        return [joined(parts) for parts in pieces]

    def fail(self, error: Exception) -> None:
        """Cancel what still runs, and let `next` raise ``error``. From any thread."""
        self._inbox.put(error)
        self.cancel()

    def cancel(self) -> None:
        """Cancel what still runs. From any thread, any number of times."""
        for handle in self._handles:
            handle.cancel()

    def close(self) -> None:
        """Cancel what still runs, and end the reading; more than once is fine."""
        if self._running > 0:
            self._running = 0
            self.cancel()


class Stream:
    """A generation whose reader blocks: an iterator of pieces, and a context manager. Closing it,
    from any thread, or letting go of it cancels what still runs. One thread at a time reads it."""

    def __init__(self, submit: Submit, jobs: Iterable[Job]) -> None:
        """Submit all jobs. Raises as `Generation`."""
        self._generation = Generation(submit, jobs, BlockingInbox())
        self._reading = threading.Lock()

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Piece:
        piece = self._wait(self._generation.next())
        if piece is None:
            raise StopIteration
        return piece

    def completions(self, ended: Callable[[], None] | None = None) -> list[Completion]:
        """Return all answers, whole; ``ended`` is called as each of them ends. Raises as
        `Generation.next`."""
        return self._wait(self._generation.completions(ended))

    def close(self) -> None:
        """Cancel what still runs; more than one call is fine."""
        self._generation.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_generation"):  # not where its first job was refused
            self.close()

    def _wait(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine whose inbox blocks where others suspend.

        Raises:
            RequestError: another thread is waiting; both would wait for the last piece.
        """
        if not self._reading.acquire(blocking=False):
            coroutine.close()
            raise RequestError("the stream is being read by another thread")
        try:
            coroutine.send(None)
        except StopIteration as done:
            result: _T = done.value
            return result
        finally:
            self._reading.release()
        raise AssertionError("an inbox that blocks has suspended")
