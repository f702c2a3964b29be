"""Options of the engine. Those of one request are in `sampling.py`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_llm.errors import ConfigError
from edge_llm.program.ops import KV_DTYPES
from edge_llm.runner.context import CONTEXT_POLICIES, ContextPolicy
from edge_llm.runner.engine.power import POWER_CHOICES, PowerChoice

DEFAULT_STEP_TOKENS = 256
DEFAULT_SESSIONS_BYTES = 4 * 10**9
MAX_STEP_TOKENS = 2**16  # a step's memory grows with it
_ADAPTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
HUGE_PAGES = ("auto", "copy", "off")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerConfig:
    """The limits of loading, which `edge_llm.load` describes. ``step_tokens`` bounds the wait
    between two tokens of a running sequence too.

    Raises:
        ConfigError: a value of the wrong type or out of range.
    """

    threads: int = 0
    context: int | None = None
    kv_dtype: str | None = None
    kv_budget: int | None = None
    max_sequences: int = 8
    step_tokens: int = DEFAULT_STEP_TOKENS
    huge_pages: str = "auto"
    draft: bool | Path = False
    sessions: Path | None = None
    sessions_bytes: int = DEFAULT_SESSIONS_BYTES
    context_policy: ContextPolicy = "error"
    power: PowerChoice = "full"
    adapters: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("threads", "context", "kv_budget", "max_sequences", "step_tokens"):
            value = getattr(self, name)
            if type(value) is not int and not (name in ("context", "kv_budget") and value is None):
                raise ConfigError(f"{name} is {value!r}, expected a whole number")
        if type(self.draft) is not bool and not isinstance(self.draft, Path):
            raise ConfigError(f"draft is {self.draft!r}, expected True, False or a program")
        if self.sessions is not None and not isinstance(self.sessions, Path):
            raise ConfigError(f"sessions is {self.sessions!r}, expected a folder")
        if type(self.sessions_bytes) is not int or self.sessions_bytes <= 0:
            raise ConfigError(
                f"sessions_bytes is {self.sessions_bytes!r}, expected more than 0 bytes"
            )
        if not isinstance(self.adapters, Mapping):
            raise ConfigError(
                f"adapters are of type {type(self.adapters).__name__}, expected folders by name"
            )
        for name, folder in self.adapters.items():
            if not isinstance(name, str) or not _ADAPTER.fullmatch(name):
                raise ConfigError(
                    f"the name of an adapter is {name!r:.80}, expected 1 to 64 letters, digits, "
                    "'.', '_' and '-', beginning with a letter or digit"
                )
            if not isinstance(folder, Path):
                raise ConfigError(f"the adapter {name} is {folder!r:.80}, expected a folder")
        if self.threads < 0:
            raise ConfigError(f"threads is {self.threads}, expected 0 (automatic) or more")
        if self.context is not None and self.context < 1:
            raise ConfigError(f"context is {self.context}, expected at least 1")
        if self.kv_dtype is not None and self.kv_dtype not in tuple(KV_DTYPES):
            raise ConfigError(
                f"kv_dtype is {self.kv_dtype!r}, expected one of: {', '.join(KV_DTYPES)}"
            )
        if self.kv_budget is not None and self.kv_budget <= 0:
            raise ConfigError(f"kv_budget is {self.kv_budget} bytes, expected more than 0")
        if not 1 <= self.max_sequences <= MAX_STEP_TOKENS:
            raise ConfigError(
                f"max_sequences is {self.max_sequences}, expected 1 to {MAX_STEP_TOKENS}"
            )
        if self.step_tokens < self.max_sequences:
            raise ConfigError(
                f"step_tokens is {self.step_tokens}, expected at least max_sequences "
                f"({self.max_sequences})"
            )
        if self.step_tokens > MAX_STEP_TOKENS:
            raise ConfigError(
                f"step_tokens is {self.step_tokens}, expected at most {MAX_STEP_TOKENS}"
            )
        if self.huge_pages not in HUGE_PAGES:
            raise ConfigError(
                f"huge_pages is {self.huge_pages!r}, expected one of: {', '.join(HUGE_PAGES)}"
            )
        if self.power not in POWER_CHOICES:
            raise ConfigError(
                f"power is {self.power!r}, expected one of: {', '.join(POWER_CHOICES)}"
            )
        if self.context_policy not in CONTEXT_POLICIES:
            raise ConfigError(
                f"context_policy is {self.context_policy!r}, expected one of: "
                f"{', '.join(CONTEXT_POLICIES)}"
            )
