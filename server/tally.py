"""The cost of a request: the ``usage`` and ``timings`` objects of a reply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import reduce
from operator import add
from typing import Any

from edge_llm.runner.context import ContextReport
from edge_llm.runner.engine.statistics import RequestStatistics
from edge_llm.runner.generation.answer import Piece
from edge_llm.runner.generation.loop import Job

# The member of every reply that says what did not fit the context.
CONTEXT_MEMBER = "context_policy"


class Tally:
    """Sums up the last pieces of all choices. ``n`` choices share each prompt, one after the
    other, and its tokens count once."""

    def __init__(self, jobs: Sequence[Job], n: int) -> None:
        self._prompt_tokens = sum(len(job.prompt_ids) for job in jobs[::n])
        self._cuts = [job.report for job in jobs[::n] if job.report is not None]
        self._n = n
        self._choices = len(jobs)
        self._finished: dict[int, RequestStatistics] = {}

    def add(self, piece: Piece) -> None:
        if piece.stats is not None:
            self._finished[piece.choice] = piece.stats

    @property
    def complete(self) -> bool:
        """True once all choices have ended."""
        return len(self._finished) == self._choices

    def usage(self) -> dict[str, Any]:
        finished = self._finished.values()
        completion = sum(stats.completion_tokens for stats in finished)
        reasoning = sum(stats.reasoning_tokens for stats in finished)
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self._prompt_tokens + completion,
            "prompt_tokens_details": {"cached_tokens": self._cached_tokens()},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }

    def context(self) -> dict[str, Any]:
        """Return the member of a reply that tells what was left out of prompts, and behind which
        tokens windows moved on; nothing if nothing was."""
        moved = [
            replace(stats.context, dropped_prompt_tokens=0, dropped_messages=0)
            for stats in self._finished.values()
            if stats.context is not None and stats.context.window_moves
        ]
        return told([*self._cuts, *moved])

    def timings(self) -> dict[str, Any]:
        """Return milliseconds, tokens per second and GB/s (1e9). Several choices give the time of
        the slowest and the rates of all together. ``cache`` says what the cache had of the prompt,
        or why it had no more (see `CacheUse`); of several prompts, each such answer once.
        ``max_tokens_clipped`` is there where less fits than was asked for: the least of them."""
        all_stats = list(self._finished.values())
        decode_seconds = max(stats.decode_seconds for stats in all_stats)
        clipped = [s.max_tokens_clipped for s in all_stats if s.max_tokens_clipped is not None]
        decoded = sum(max(stats.completion_tokens - 1, 0) for stats in all_stats)
        return {
            "prompt_tokens": self._prompt_tokens,
            "cached_tokens": self._cached_tokens(),
            "cache": ", ".join(dict.fromkeys(stats.cache for stats in self._prompts())),
            "completion_tokens": sum(stats.completion_tokens for stats in all_stats),
            "queue_ms": _ms(max(stats.queue_seconds for stats in all_stats)),
            "prompt_ms": _ms(max(stats.prefill_seconds for stats in all_stats)),
            "time_to_first_token_ms": _ms(min(stats.time_to_first_token for stats in all_stats)),
            "decode_ms": _ms(decode_seconds),
            "prompt_tokens_per_second": max(s.prefill_tokens_per_second for s in all_stats),
            "decode_tokens_per_second": decoded / decode_seconds if decode_seconds else 0.0,
            "decode_gb_per_second": max(stats.decode_gb_per_second for stats in all_stats),
            "drafted_tokens": sum(stats.drafted_tokens for stats in all_stats),
            "accepted_tokens": sum(stats.accepted_tokens for stats in all_stats),
            **({"max_tokens_clipped": min(clipped)} if clipped else {}),
        }

    def _cached_tokens(self) -> int:
        return sum(stats.cached_tokens for stats in self._prompts())

    def _prompts(self) -> list[RequestStatistics]:
        # The first choice of each prompt: the others find in the cache what it computed.
        return [stats for choice, stats in sorted(self._finished.items()) if choice % self._n == 0]


def told(reports: Sequence[ContextReport]) -> dict[str, Any]:
    """Return what was left out, as the member of a reply that says so; nothing if nothing was."""
    return {CONTEXT_MEMBER: asdict(reduce(add, reports))} if reports else {}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
