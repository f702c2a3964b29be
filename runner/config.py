"""Run-time options: of the engine (RunnerConfig) and of one request (SamplingParams)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_llm.errors import ConfigError, RequestError

MAX_TOP_LOGPROBS = 20
DEFAULT_STEP_TOKENS = 256
HUGE_PAGES = ("auto", "copy", "off")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerConfig:
    """``threads``: 0 takes the physical cores. ``kv_budget``: bytes for KV pages, None: enough for
    ``max_sequences`` half-full contexts, at most a quarter of the machine's memory. ``step_tokens``
    bounds the tokens of one step, and so the wait between two tokens of a running sequence.
    ``huge_pages``: "auto" asks the kernel to hold the file in huge pages, "copy" copies the weights
    into such pages at load if memory allows, "off" does neither."""

    threads: int = 0
    kv_budget: int | None = None
    max_sequences: int = 8
    step_tokens: int = DEFAULT_STEP_TOKENS
    huge_pages: str = "auto"

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ConfigError(f"threads is {self.threads}, expected 0 (automatic) or more")
        if self.kv_budget is not None and self.kv_budget <= 0:
            raise ConfigError(f"kv_budget is {self.kv_budget} bytes, expected more than 0")
        if self.max_sequences < 1:
            raise ConfigError(f"max_sequences is {self.max_sequences}, expected at least 1")
        if self.step_tokens < self.max_sequences:
            raise ConfigError(
                f"step_tokens is {self.step_tokens}, expected at least max_sequences "
                f"({self.max_sequences})"
            )
        if self.huge_pages not in HUGE_PAGES:
            raise ConfigError(
                f"huge_pages is {self.huge_pages!r}, expected one of: {', '.join(HUGE_PAGES)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How one request samples. ``temperature`` 0 is greedy; ``top_k`` 0, ``top_p`` 1, ``min_p`` 0
    and penalties at their neutral value are off. ``max_tokens`` None: up to the context limit; 0:
    the prompt is computed and nothing sampled.
    ``seed`` None: a fresh one. ``top_logprobs`` None: no log-probabilities; else 0 to 20.
    ``prompt_logprobs``: likewise, of the prompt's own tokens.
    ``stop_ids`` None: the program's own; ``ignore_eos`` goes on past them.

    Raises:
        RequestError: a value out of range, ``param`` names the field.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    max_tokens: int | None = None
    top_logprobs: int | None = None
    prompt_logprobs: int | None = None
    stop_ids: tuple[int, ...] | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0.0, 2.0)
        _check("top_k", self.top_k, 0, 2**31 - 1)
        _check("top_p", self.top_p, 0.0, 1.0)
        _check("min_p", self.min_p, 0.0, 1.0)
        _check("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _check("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        if not (math.isfinite(self.repetition_penalty) and 0.0 < self.repetition_penalty <= 10.0):
            raise RequestError(
                f"repetition_penalty is {self.repetition_penalty}, expected above 0, at most 10",
                param="repetition_penalty",
            )
        if self.seed is not None:
            _check("seed", self.seed, -(2**63), 2**64 - 1)
        if self.max_tokens is not None:
            _check("max_tokens", self.max_tokens, 0, 2**31 - 1)
        if self.top_logprobs is not None:
            _check("top_logprobs", self.top_logprobs, 0, MAX_TOP_LOGPROBS)
        if self.prompt_logprobs is not None:
            _check("prompt_logprobs", self.prompt_logprobs, 0, MAX_TOP_LOGPROBS)
        for value in self.logit_bias.values():
            _check("logit_bias", value, -100.0, 100.0)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also false for NaN
        raise RequestError(f"{name} is {value}, expected {low} to {high}", param=name)
