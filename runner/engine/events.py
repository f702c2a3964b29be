"""The events of a request, as the engine tells them.

Callbacks run on the engine's thread and must not block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import EdgeLLMError
from edge_llm.runner.engine.statistics import RequestStatistics
from edge_llm.runner.executor import Float32, TokenLogprobs

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One more token of the answer. Stop ids are no part of the answer and give no event."""

    id: int
    logprobs: TokenLogprobs | None


@dataclass(frozen=True, slots=True)
class PromptEvent:
    """Log-probabilities of the prompt's tokens, all at once and before the first TokenEvent. The
    first token follows nothing: None."""

    logprobs: tuple[TokenLogprobs | None, ...]


@dataclass(frozen=True, slots=True)
class LogitsEvent:
    """Logits of the positions from ``start`` on, [n, vocab]. The same positions may come again,
    with the same bits, if the sequence was preempted."""

    start: int
    logits: Float32


@dataclass(frozen=True, slots=True)
class EmbeddingEvent:
    """The pooled hidden states of a text, [width] float64, at its natural length."""

    vector: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FinishEvent:
    """The last event of a request that did not fail."""

    reason: FinishReason
    stats: RequestStatistics


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """The last event of a request that failed."""

    error: EdgeLLMError


Event = TokenEvent | PromptEvent | LogitsEvent | EmbeddingEvent | FinishEvent | ErrorEvent
EventCallback = Callable[[Event], None]
