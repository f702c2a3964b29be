"""Teacher-forced evaluation: the logits of every position, as one blocking call."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np

from edge_llm.errors import EdgeLLMError
from edge_llm.runner.engine import Engine
from edge_llm.runner.events import ErrorEvent, Event, FinishEvent, LogitsEvent
from edge_llm.runner.executor import Float32


def collect_logits(engine: Engine, token_ids: Iterable[int], chunk: int | None = None) -> Float32:
    """Logits [n, vocab] of ``token_ids``. Runs on the engine's thread beside whatever else it does;
    not to be called from there.

    Raises:
        EdgeLLMError: as :meth:`Engine.submit_logits`, or the evaluation failed.
    """
    ids = list(token_ids)
    logits = np.empty((len(ids), engine.facts.vocab), np.float32)
    done = threading.Event()
    errors: list[EdgeLLMError] = []

    def on_event(event: Event) -> None:
        match event:
            case LogitsEvent(start, rows):
                logits[start : start + len(rows)] = rows
            case ErrorEvent(error):
                errors.append(error)
                done.set()
            case FinishEvent():
                done.set()

    request = engine.submit_logits(ids, on_event, chunk)
    try:
        done.wait()
    finally:
        request.cancel()  # for an interrupt; no effect on what has ended
    if errors:
        raise errors[0]
    return logits
