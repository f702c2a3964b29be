"""Requests as blocking calls, and the logits of every position, or of the last, by one."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable

import numpy as np

from edge_llm.errors import GenerationError
from edge_llm.runner.engine.engine import Engine
from edge_llm.runner.engine.events import ErrorEvent, Event, EventCallback, FinishEvent, LogitsEvent
from edge_llm.runner.engine.requests import Request
from edge_llm.runner.evaluation.quality import Float64
from edge_llm.runner.executor import Float32


def collect_logits(
    engine: Engine,
    token_ids: Iterable[int],
    chunk: int | None = None,
    *,
    adapter: str | None = None,
) -> Float32:
    """Return the logits [n, vocab] of ``token_ids``, with this ``adapter``. The engine goes on with
    whatever else it does; not to be called from its thread.

    Raises:
        EdgeLLMError: as :meth:`Engine.submit_logits`, or the evaluation failed.
    """
    ids = list(token_ids)
    logits = np.empty((len(ids), engine.facts.vocab), np.float32)

    def take(event: Event) -> None:
        if isinstance(event, LogitsEvent):
            logits[event.start : event.start + len(event.logits)] = event.logits

    run_to_end(lambda on_event: engine.submit_logits(ids, on_event, chunk, adapter=adapter), take)
    return logits


def next_log_probabilities(
    engine: Engine, token_ids: Iterable[int], *, adapter: str | None = None
) -> Float64:
    """Return the log-probabilities [vocab] of the token after ``token_ids``, in nats, with this
    ``adapter``.

    Raises:
        EdgeLLMError: as :meth:`Engine.submit_logits`, or the evaluation failed.
        GenerationError: the logits are not finite.
    """
    ids = list(token_ids)
    rows: list[Float64] = []

    def take(event: Event) -> None:
        if isinstance(event, LogitsEvent):
            rows.append(event.logits[-1].astype(np.float64))

    run_to_end(
        lambda on_event: engine.submit_logits(ids, on_event, last_only=True, adapter=adapter), take
    )
    logits = rows[-1]
    if not np.isfinite(logits).all():
        raise GenerationError("the logits are not finite")
    shifted = logits - logits.max()
    scores: Float64 = shifted - np.log(np.exp(shifted).sum())
    return scores


def run_to_end(submit: Callable[[EventCallback], Request], take: EventCallback) -> None:
    """Submit a request and wait for its end; ``take`` gets its events, on the engine's thread.

    Raises:
        EdgeLLMError: it was refused or failed.
    """
    ends: queue.SimpleQueue[FinishEvent | ErrorEvent] = queue.SimpleQueue()

    def on_event(event: Event) -> None:
        take(event)
        if isinstance(event, FinishEvent | ErrorEvent):
            ends.put(event)

    request = submit(on_event)
    try:
        end = ends.get()
    finally:
        request.cancel()  # for an interrupt; no effect on what has ended
    if isinstance(end, ErrorEvent):
        raise end.error
