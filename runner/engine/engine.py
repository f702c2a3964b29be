"""The engine: requests in, events out. One thread drives the executor; everybody else talks to it.

A step is schedule, run, append, emit. Whatever goes wrong ends requests with an error event and
gives their blocks back; the thread itself goes on until :meth:`Engine.stop`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from edge_llm.errors import EdgeLLMError, GenerationError, NativeError, RequestError
from edge_llm.program.documents import PoolingKind
from edge_llm.runner.context import Context
from edge_llm.runner.engine.batch import build_batch, build_draft
from edge_llm.runner.engine.constraints import Constraint, check_masks
from edge_llm.runner.engine.crew import Crew, Staff
from edge_llm.runner.engine.draft_program import DraftProgram
from edge_llm.runner.engine.drafters import Drafter
from edge_llm.runner.engine.drafts import Drafts
from edge_llm.runner.engine.events import (
    EmbeddingEvent,
    ErrorEvent,
    Event,
    EventCallback,
    FinishEvent,
    FinishReason,
    LogitsEvent,
    PromptEvent,
    TokenEvent,
)
from edge_llm.runner.engine.pace import Pace
from edge_llm.runner.engine.pool import BlockPool
from edge_llm.runner.engine.pooling import Pooling
from edge_llm.runner.engine.power import Power
from edge_llm.runner.engine.processors import LogitsProcessor, sampled_here
from edge_llm.runner.engine.request_queue import RequestQueue
from edge_llm.runner.engine.requests import (
    EngineFacts,
    Request,
    embedding,
    evaluation,
    generation,
    with_adapter,
)
from edge_llm.runner.engine.saved import SavedBlocks
from edge_llm.runner.engine.scheduler import Scheduler, Slice, Step
from edge_llm.runner.engine.sequence import Sequence
from edge_llm.runner.engine.statistics import EngineStatistics
from edge_llm.runner.executor import Executor, StepResult
from edge_llm.runner.sampling import SamplingParams

STOPPED = "the engine was stopped"
_LAST_SECONDS = 3.0  # for saving what an engine that stops has not saved yet

_log = logging.getLogger(__name__)


class Engine:
    """Runs requests together on one executor, which it owns from now on.

    Nothing runs until :meth:`start`; a test may call :meth:`step` itself instead."""

    def __init__(
        self,
        executor: Executor,
        facts: EngineFacts,
        saved: SavedBlocks | None = None,
        draft: DraftProgram | None = None,
        power: Power | None = None,
    ) -> None:
        """``saved`` keeps the blocks of prompts and answers across restarts; None: nothing
        does. ``draft`` gives drafts; the engine owns it too. ``power`` says when to spare the
        machine (None: never)."""
        limits = executor.limits
        self.facts = facts
        self.max_rows = min(limits.max_rows, limits.max_tokens)
        self.max_sequences = limits.max_sequences
        self._executor = executor
        windows = facts.windows or (0,) * len(limits.blocks)
        self._pool = BlockPool(limits.blocks, windows, facts.block_size, limits.max_tokens)
        self._scheduler = Scheduler(
            self._pool,
            max_sequences=limits.max_sequences,
            step_tokens=limits.max_tokens,
            max_rows=limits.max_rows,
        )
        self._pace = Pace(limits.max_sequences, limits.max_tokens)
        self._crew = Crew(max(1, limits.threads))
        self._power = power or Power()
        if draft is not None:
            draft.staff = self._staff
        self._drafts = Drafts(facts, draft)
        self._steps = 0
        self._step_seconds = 0.0
        self._saved = saved
        self._queue = RequestQueue()
        self._live: dict[Sequence, None] = {}  # taken in, and not told their end yet
        self._thread: threading.Thread | None = None
        self._processing = False  # a request's processors are running, on the thread

    @property
    def prompt_context(self) -> Context:
        """The context that prompts have to fit with their answers. Those that are cut have to fit
        the KV blocks too; others are told that they do not."""
        if self.facts.context_policy == "error":
            return Context(self.facts.context)
        return self.facts.room(self._pool.capacity)

    def start(self) -> None:
        """Start the engine's thread."""
        self._thread = threading.Thread(target=self._run, name="edge-llm-engine", daemon=True)
        self._thread.start()

    def stop(self, why: str = STOPPED) -> None:
        """End all requests with an error event that says ``why``, then the thread and the executor.
        The step that is running is waited for. From any thread; more than one call is fine. In a
        forked child it does nothing: the thread and its requests are the parent's."""
        if self._queue.forked:
            return
        self._queue.close(why)
        if self._thread is None:
            self._shut_down(GenerationError(self._queue.why))
        elif self._thread is not threading.current_thread():
            self._thread.join()

    def submit(
        self,
        prompt: Iterable[int],
        params: SamplingParams,
        on_event: EventCallback,
        *,
        constraint: Constraint | None = None,
        drafter: Drafter | None = None,
        processors: Iterable[LogitsProcessor] = (),
        adapter: str | None = None,
        client: str = "",
    ) -> Request:
        """Queue a prompt of token ids. ``on_event`` is called on the engine's thread, the last
        time with a FinishEvent or an ErrorEvent. ``constraint`` says what may be sampled,
        and ends the answer with "stop" once it has finished; ``drafter`` proposes what may come
        next (None, and once a window has moved on: what ``params.speculation`` asks for);
        ``processors`` change the logits, on the engine's thread, one after the other; ``adapter``
        is the name of one that is loaded. Requests of different ``client`` names share the engine
        alike, however many each has.

        Raises:
            ContextLengthError: the prompt leaves no room in the context.
            CapacityError: the KV blocks can never hold the prompt and a token more.
            RequestError: the program is for vectors alone; the prompt is empty, or something in it
                is not an id of the vocabulary; no adapter of that name is loaded;
                processors together with speculation, which would compute ahead of them; or a
                processor of this engine asks, for which it would wait for ever.
            GenerationError: the engine was stopped, or belongs to the process that was forked.
        """
        sequence = generation(prompt, params, on_event, self.facts, self._pool.capacity)
        with_adapter(sequence, adapter, self.facts)
        sequence.processors, sequence.constraint = tuple(processors), constraint
        sequence.client = client
        sequence.drafter = self._drafts.drafter(sequence, params.speculation, drafter)
        return self._enqueue(sequence)

    def submit_logits(
        self,
        token_ids: Iterable[int],
        on_event: EventCallback,
        chunk: int | None = None,
        *,
        last_only: bool = False,
        adapter: str | None = None,
        client: str = "",
    ) -> Request:
        """Queue an evaluation: LogitsEvents for every position of ``token_ids`` (for the last, with
        ``last_only``), and a FinishEvent. ``chunk`` bounds the tokens of a step; ``client`` is as
        in `submit`.

        Raises:
            ContextLengthError: more tokens than the context.
            CapacityError: the KV blocks can never hold them.
            RequestError: the program is for vectors alone; no tokens, one that is no id of the
                vocabulary, a chunk that no step can take, or no such adapter.
            GenerationError: the engine was stopped, or belongs to the process that was forked.
        """
        sequence = evaluation(
            token_ids,
            chunk,
            on_event,
            self.facts,
            self._pool.capacity,
            self.max_rows,
            last_only=last_only,
        )
        sequence.client = client
        return self._enqueue(with_adapter(sequence, adapter, self.facts))

    def submit_embedding(
        self,
        token_ids: Iterable[int],
        pooling: PoolingKind,
        on_event: EventCallback,
        *,
        adapter: str | None = None,
        client: str = "",
    ) -> Request:
        """Queue a text of which one vector is wanted: an EmbeddingEvent, and a FinishEvent;
        ``client`` is as in `submit`.

        Raises:
            ProgramError: the program gives no hidden states.
            ContextLengthError: more tokens than the context.
            CapacityError: the KV blocks can never hold them.
            RequestError: no tokens, one that is no id of the vocabulary, or no such pooling or
                adapter.
            GenerationError: the engine was stopped, or belongs to the process that was forked.
        """
        sequence = embedding(token_ids, pooling, on_event, self.facts, self._pool.capacity)
        sequence.client = client
        return self._enqueue(with_adapter(sequence, adapter, self.facts))

    def stats(self) -> EngineStatistics:
        """Return a snapshot; the figures may be of two neighbouring steps.

        Raises:
            GenerationError: the engine belongs to the process that was forked.
        """
        self._queue.check_process()
        return EngineStatistics(
            running=len(self._scheduler.running),
            waiting=len(self._queue) + len(self._scheduler.waiting),
            blocks=self._pool.count,
            blocks_free=self._pool.available,
            blocks_cached=self._pool.cached,
            steps=self._steps,
            preemptions=self._scheduler.preemptions,
            step_seconds=self._step_seconds,
            groups=self._pool.statistics(),
        )

    def step(self) -> bool:
        """Run one step; return False if there was nothing to do."""
        try:
            self._take_in()
            if not (self._scheduler.running or self._scheduler.waiting):
                return False
            self._drafts.propose(self._scheduler.running, self._ending)
            step = self._scheduler.schedule(self._pace.tokens)
            if not step.slices:
                raise AssertionError("sequences wait, but none can run")
            started = time.perf_counter()
            for group, source, target in step.copies:
                self._executor.copy_block(group, source, target)
            self._drafts.predict(step, self._predicted)
            self._constrain(step)
            if not step.slices:
                return True  # a constraint failed, and its request was the only one
            result = self._execute(step, started)
            self._append(step, result, started, time.perf_counter())
        except BaseException as error:  # the executor's failure or a bug of ours: nobody may hang
            if not isinstance(error, EdgeLLMError):
                _log.error("a step failed", exc_info=error)
            self._fail_all(error)
            if not isinstance(error, Exception):
                raise
        return True

    def _enqueue(self, sequence: Sequence) -> Request:
        if self._processing and self._thread is threading.current_thread():
            raise RequestError(
                "a logits processor asked the model that waits for it",
                hint="Load the program a second time for what a processor asks.",
            )
        self._queue.put(sequence)
        return Request(sequence, self._queue.notice)

    # ---- before a step ----

    def _take_in(self) -> None:
        arrived, cancelled = self._queue.take()
        self._live.update(dict.fromkeys(arrived))
        for sequence in arrived:
            self._scheduler.add(sequence)
        if cancelled:
            for sequence in list(self._live):
                if sequence.cancelled:
                    self._finish(sequence, "cancelled")

    def _constrain(self, step: Step) -> None:
        """Get the masks of the rows that sample, and cut drafts where they are not allowed."""
        for sequence, part in list(step.slices.items()):
            constraint = sequence.constraint
            if constraint is None or part.count < sequence.remaining or not sequence.samples:
                continue
            with self._ending(sequence, "constraint"):
                if constraint.finished:  # before anything was sampled: the empty answer is the one
                    self._finish(sequence, "stop")
                    step.drop(sequence)
                    continue
                part.masks = constraint.masks(part.draft)
                check_masks(part.masks, len(part.draft), self.facts.vocab)
                if part.draft:
                    step.draft(part, part.draft[: len(part.masks) - 1])
            if sequence not in self._live:
                step.drop(sequence)

    @contextmanager
    def _ending(self, sequence: Sequence, name: str) -> Iterator[None]:
        """End ``sequence`` alone, if what its request brought along fails."""
        try:
            yield
        except BaseException as error:
            _log.exception("the %s of a request failed; the request is ended", name)
            typed = GenerationError(f"the request's {name} failed: {error!r}")
            typed.__cause__ = error
            self._end(sequence, ErrorEvent(typed))

    # ---- one step ----

    def _staff(self, tokens: int) -> Staff:
        """Return who computes a step of so many tokens."""
        if self._power.saving:
            return Staff(max(1, self._crew.most // 2), patient=True)
        return Staff(self._crew.workers(tokens))

    def _predicted(self, growing: Mapping[Sequence, list[int]]) -> StepResult:
        """Return what the draft method says of a token more behind each of these drafts."""
        return self._executor.step(build_draft(growing, self._staff(len(growing))))

    def _execute(self, step: Step, now: float) -> StepResult:
        for sequence in step.slices:
            if sequence.clock.started is None:
                sequence.clock.started = now
        staff = self._staff(step.tokens)
        batch = build_batch(step.slices, staff)
        result = self._executor.step(batch)
        if result.took is not None and not staff.patient:
            self._crew.record(step.tokens, *result.took)
        sampleable = self.facts.sampleable
        size = self.facts.vocab if sampleable is None else sampleable
        self._processing = True
        try:
            return sampled_here(step.slices, result, size)
        finally:
            self._processing = False

    def _append(self, step: Step, result: StepResult, started: float, now: float) -> None:
        self._steps += 1
        self._step_seconds += now - started
        self._pace.record(step.tokens, now - started)
        decoding = [s for s, part in step.slices.items() if part.kind != "prefill"]
        if len(decoding) == len(step.slices):
            self._drafts.record(step.tokens, now - started)
        if decoding:
            read = self.facts.read_bytes([s.computed for s in step.slices])
            for sequence in decoding:
                sequence.clock.decode_step_seconds += now - started
                sequence.clock.decode_step_bytes += read
        row = hidden = 0
        for sequence, part in step.slices.items():
            first, rows = sequence.computed, range(row, row + sequence.rows(part.count))
            row = rows.stop + len(part.draft)
            states = sequence.hidden_rows(part.count)
            hidden += states
            self._scheduler.commit(sequence, first + part.count)
            if sequence.pooling is not None:
                self._append_states(sequence, sequence.pooling, result, hidden - states, hidden)
            self._append_rows(sequence, part, first, result, rows, now)

    def _append_rows(
        self,
        sequence: Sequence,
        part: Slice,
        first: int,
        result: StepResult,
        rows: range,
        now: float,
    ) -> None:
        """Take in ``rows``, which are those of the slice's known tokens."""
        if sequence.want_logits:
            if result.logits is None:
                raise AssertionError("the executor returned no logits")
            if rows:
                start = first + part.count - len(rows)
                self._emit(sequence, LogitsEvent(start, result.logits[rows.start : rows.stop]))
        elif sequence.every_row:
            error = self._append_scores(sequence, first, result, rows)
            if error is not None:
                self._end(sequence, ErrorEvent(_failure(error)))
                return
        if sequence.remaining or sequence not in self._live:
            return
        if sequence.samples:
            self._append_tokens(sequence, part, result, rows[-1], now)
        else:
            sequence.clock.token(now)
            self._finish(sequence, "length")

    def _append_states(
        self, sequence: Sequence, pooling: Pooling, result: StepResult, begin: int, end: int
    ) -> None:
        """Take in the hidden states from ``begin`` to ``end`` of the step's."""
        if end > begin:
            if result.hidden is None:
                raise AssertionError("the executor returned no hidden states")
            pooling.add(result.hidden[begin:end])
        if sequence.remaining == 0:
            vector = pooling.vector()
            if np.isfinite(vector).all():
                self._emit(sequence, EmbeddingEvent(vector))
            else:
                self._end(sequence, ErrorEvent(GenerationError("the hidden states are not finite")))

    def _append_scores(
        self, sequence: Sequence, first: int, result: StepResult, rows: range
    ) -> str | GenerationError | None:
        """Take in the scores of the prompt's tokens from ``first + 1`` on; return what is wrong
        with one, if any."""
        del sequence.scores[first:]  # what was computed before a preemption
        for row in rows[: sequence.prompt_length - 1 - first]:
            if (error := result.errors[row]) is not None:
                return error
            if (logprobs := result.logprobs[row]) is None:
                raise AssertionError("the executor returned no log-probabilities")
            sequence.scores.append(logprobs)
        if sequence.remaining == 0:
            self._emit(sequence, PromptEvent((None, *sequence.scores)))
            sequence.scores.clear()
        return None

    def _append_tokens(
        self, sequence: Sequence, part: Slice, result: StepResult, row: int, now: float
    ) -> None:
        """Take in the token sampled at ``row``, then those of the following rows for as long as
        the draft was what was sampled: each is the token that a step of its own would have
        given."""
        ending: FinishReason | GenerationError | None = None
        right = 0  # tokens of the draft that turned out to be so
        tokens: list[int] = []
        for ahead in range(len(part.draft) + 1):
            if (error := result.errors[row + ahead]) is not None:
                ending = _failure(error)
                break
            token = int(result.ids[row + ahead])
            sequence.clock.token(now)
            if token in sequence.stop_ids:
                ending = "stop"
                break
            sequence.accept(token)
            tokens.append(token)
            self._emit(sequence, TokenEvent(token, result.logprobs[row + ahead]))
            if sequence.length >= sequence.limit:
                ending = "length"
                break
            if sequence.cancelled or ahead == len(part.draft) or token != part.draft[ahead]:
                break
            right += 1
        if part.draft:
            sequence.clock.drafted += len(part.draft)
            sequence.clock.accepted += right
            self._scheduler.commit(sequence, sequence.computed + right)
            self._scheduler.rewind(sequence)
        if isinstance(ending, GenerationError):
            self._end(sequence, ErrorEvent(ending))
        elif ending == "stop":
            self._finish(sequence, ending)
        else:
            self._tell(sequence, part, tokens, right)
            if ending == "length" and sequence in self._live:
                self._finish(sequence, ending)
            elif sequence.filled and sequence in self._live:
                self._move_window(sequence)

    def _move_window(self, sequence: Sequence) -> None:
        """Go on without a part of the context: what is kept is read again, at the positions that it
        has now, so that what follows depends on nothing else."""
        sequence.move_window()
        self._scheduler.restart(sequence)
        sequence.drafter = self._drafts.drafter(sequence, sequence.params.speculation, None)

    def _tell(self, sequence: Sequence, part: Slice, tokens: list[int], right: int) -> None:
        if sequence.constraint is not None:
            with self._ending(sequence, "constraint"):
                sequence.constraint.accept(tokens)
                if sequence.constraint.finished:
                    self._finish(sequence, "stop")
        if sequence.drafter is not None and part.draft and sequence in self._live:
            with self._ending(sequence, "drafter"):
                sequence.drafter.accept(len(part.draft), right)

    # ---- the end of a request ----

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        stats = sequence.clock.statistics(
            sequence.prompt_length,
            sequence.cached_tokens or 0,
            sequence.cache,
            sequence.completion_length,
            sequence.report,
        )
        self._end(sequence, FinishEvent(reason, stats))

    def _end(self, sequence: Sequence, event: FinishEvent | ErrorEvent) -> None:
        del self._live[sequence]
        try:
            self._scheduler.remove(sequence)
            self._drafts.forget(sequence)
        finally:
            self._emit(sequence, event)

    def _emit(self, sequence: Sequence, event: Event) -> None:
        try:
            sequence.on_event(event)
        except BaseException:  # also what is meant to end a thread or a process: this one is ours
            if not sequence.cancelled:  # else nobody waits for it: its event loop may have closed
                _log.exception("the callback of a request failed; the request is cancelled")
            sequence.cancelled = True
            self._queue.notice()

    def _fail_all(self, error: BaseException) -> None:
        for sequence in list(self._live):
            try:
                self._end(sequence, ErrorEvent(_as_typed(error)))
            except Exception:
                _log.exception("a request that failed could not be taken out")

    # ---- the thread ----

    def _run(self) -> None:
        try:
            if self._saved is not None:
                count = self._saved.restore(self._pool, self._executor, lambda: self._queue.closed)
                _log.info("%d blocks of earlier sessions are there", count)
            while not self._queue.closed:
                if not self.step():
                    self._save(lambda: self._queue.filled)
                    self._queue.wait()
            error: BaseException = GenerationError(self._queue.why)
        except BaseException as fault:
            _log.critical("the engine's thread failed", exc_info=fault)
            error = fault
        finally:
            self._shut_down(error)

    def _shut_down(self, error: BaseException) -> None:
        self._queue.close(STOPPED)
        arrived, _ = self._queue.take()
        self._live.update(dict.fromkeys(arrived))
        self._fail_all(error)
        end = time.monotonic() + _LAST_SECONDS
        try:
            self._save(lambda: time.monotonic() > end)
        finally:
            self._executor.close()
            self._drafts.close()

    def _save(self, interrupted: Callable[[], bool]) -> None:
        if self._saved is not None:
            self._saved.save(self._pool, self._executor, interrupted)


def _failure(error: str | GenerationError) -> GenerationError:
    """Return the error of one row, which is one request's."""
    return error if isinstance(error, GenerationError) else GenerationError(error)


def _as_typed(error: BaseException) -> EdgeLLMError:
    """Return an error of its own for each request: one object must not be raised in two threads."""
    kind = NativeError if isinstance(error, NativeError) else GenerationError
    typed = kind(str(error) or repr(error))
    typed.__cause__ = error
    return typed
