"""Figures of one request, and of the engine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from edge_llm.runner.context import ContextReport

# What the cached blocks gave of a prompt, and why not more:
# - hit: all but its last token, which is always computed
# - partial: its beginning; nothing cached goes on as it does
# - evicted: the block that would come next was there, but had to make room (cached_tokens tells
#   whether anything was left)
# - no shared prefix: nothing cached begins as it does
# - empty: nothing was cached
# - not used: there was nothing to look for: a prompt of one token, a result that needs every
#   position computed, or a request that never began
CacheUse = Literal["hit", "partial", "evicted", "no shared prefix", "empty", "not used"]


@dataclass(frozen=True, slots=True)
class RequestStatistics:
    """One request's figures. Times in seconds; rates are 0 where nothing was measured.

    ``cache``: what the cache had of the prompt, or why it had no more.
    ``queue_seconds``: from submit to the first step. ``prefill_seconds``: from there to the first
    token; ``time_to_first_token``: both. ``decode_*``: over the tokens after the first.
    ``decode_gb_per_second``: weights and KV bytes (1e9) that its decode steps read, neighbours'
    included, over the time of those steps. ``drafted_tokens`` were proposed and computed ahead, and
    ``accepted_tokens`` of them were what the model then sampled. ``reasoning_tokens`` of the answer
    were thinking, where a parser tells that apart. ``max_tokens_clipped``: how many tokens the
    answer could have, where it asked for more than there was room for. ``context``: what was left
    out of prompt and window (None: nothing)."""

    prompt_tokens: int
    cached_tokens: int
    cache: CacheUse
    completion_tokens: int
    queue_seconds: float
    prefill_seconds: float
    time_to_first_token: float
    decode_seconds: float
    prefill_tokens_per_second: float
    decode_tokens_per_second: float
    decode_gb_per_second: float
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    reasoning_tokens: int = 0
    max_tokens_clipped: int | None = None
    context: ContextReport | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, for JSON."""
        return asdict(self)

    def summary(self) -> str:
        """Return one line for people."""
        drafts = (
            f", {self.accepted_tokens} of {self.drafted_tokens} drafted tokens accepted"
            if self.drafted_tokens
            else ""
        )
        return (
            f"{self.prompt_tokens} prompt tokens ({self.cached_tokens} cached: {self.cache}) "
            f"in {self.prefill_seconds:.2f} s, "
            f"first token after {self.time_to_first_token:.2f} s; "
            f"{self.completion_tokens} tokens at {self.decode_tokens_per_second:.1f} tokens/s, "
            f"{self.decode_gb_per_second:.1f} GB/s{drafts}"
            + (f"; {self.context.summary()}" if self.context else "")
        )


@dataclass(slots=True)
class RequestClock:
    """Collects one request's figures while it runs; times are of ``time.perf_counter``."""

    submitted: float
    started: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    decode_step_seconds: float = 0.0
    decode_step_bytes: int = 0
    drafted: int = 0
    accepted: int = 0
    max_tokens_clipped: int | None = None

    def token(self, now: float) -> None:
        if self.first_token is None:
            self.first_token = now
        self.last_token = now

    def statistics(
        self,
        prompt_tokens: int,
        cached_tokens: int,
        cache: CacheUse,
        completion_tokens: int,
        context: ContextReport | None = None,
    ) -> RequestStatistics:
        started = self.submitted if self.started is None else self.started
        first = started if self.first_token is None else self.first_token
        last = first if self.last_token is None else self.last_token
        return RequestStatistics(
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
            cache=cache,
            completion_tokens=completion_tokens,
            queue_seconds=started - self.submitted,
            prefill_seconds=first - started,
            time_to_first_token=first - self.submitted,
            decode_seconds=last - first,
            prefill_tokens_per_second=_rate(prompt_tokens - cached_tokens, first - started),
            decode_tokens_per_second=_rate(completion_tokens - 1, last - first),
            decode_gb_per_second=_rate(self.decode_step_bytes / 1e9, self.decode_step_seconds),
            drafted_tokens=self.drafted,
            accepted_tokens=self.accepted,
            max_tokens_clipped=self.max_tokens_clipped,
            context=context,
        )


@dataclass(frozen=True, slots=True)
class GroupStatistics:
    """The blocks of one group of states. ``cached`` are unused but findable, and count as free."""

    blocks: int
    free: int
    cached: int


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """A snapshot of the engine: sequences that run and wait, its blocks in all groups and in each
    (``blocks_cached`` are unused but findable, and count as free), and what it has done so far:
    steps, the seconds they took, and sequences that had to make room for others."""

    running: int
    waiting: int
    blocks: int
    blocks_free: int
    blocks_cached: int
    steps: int
    preemptions: int
    step_seconds: float = 0.0
    groups: tuple[GroupStatistics, ...] = ()


def _rate(amount: float, seconds: float) -> float:
    return amount / seconds if amount > 0 and seconds > 0 else 0.0
