"""Figures of one request, and of the engine."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class RequestStatistics:
    """One request's figures. Times in seconds; rates are 0 where nothing was measured.

    ``queue_seconds``: from submit to the first step. ``prefill_seconds``: from there to the first
    token; ``time_to_first_token``: both. ``decode_*``: over the tokens after the first.
    ``decode_gb_per_second``: weights and KV bytes (1e9) that its decode steps read, neighbours'
    included, over the time of those steps."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    queue_seconds: float
    prefill_seconds: float
    time_to_first_token: float
    decode_seconds: float
    prefill_tokens_per_second: float
    decode_tokens_per_second: float
    decode_gb_per_second: float

    def as_dict(self) -> dict[str, int | float]:
        """The fields by name, for JSON."""
        return asdict(self)

    def summary(self) -> str:
        """One line for people."""
        cached = f" ({self.cached_tokens} cached)" if self.cached_tokens else ""
        return (
            f"{self.prompt_tokens} prompt tokens{cached} in {self.prefill_seconds:.2f} s, "
            f"first token after {self.time_to_first_token:.2f} s; "
            f"{self.completion_tokens} tokens at {self.decode_tokens_per_second:.1f} tokens/s, "
            f"{self.decode_gb_per_second:.1f} GB/s"
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

    def token(self, now: float) -> None:
        if self.first_token is None:
            self.first_token = now
        self.last_token = now

    def statistics(
        self, prompt_tokens: int, cached_tokens: int, completion_tokens: int
    ) -> RequestStatistics:
        started = self.submitted if self.started is None else self.started
        first = started if self.first_token is None else self.first_token
        last = first if self.last_token is None else self.last_token
        return RequestStatistics(
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
            completion_tokens=completion_tokens,
            queue_seconds=started - self.submitted,
            prefill_seconds=first - started,
            time_to_first_token=first - self.submitted,
            decode_seconds=last - first,
            prefill_tokens_per_second=_rate(prompt_tokens - cached_tokens, first - started),
            decode_tokens_per_second=_rate(completion_tokens - 1, last - first),
            decode_gb_per_second=_rate(self.decode_step_bytes / 1e9, self.decode_step_seconds),
        )


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """A snapshot of the engine. ``pages_cached`` are unused but findable, and count as free."""

    running: int
    waiting: int
    pages: int
    pages_free: int
    pages_cached: int
    steps: int
    preemptions: int


def _rate(amount: float, seconds: float) -> float:
    return amount / seconds if amount > 0 and seconds > 0 else 0.0
