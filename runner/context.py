"""The policies for what does not fit the context: refused, or cut, and then said in the reply.

A prompt that is cut keeps its beginning and its end. What is left out of the middle is a multiple
of a stride, so that a conversation which grows by a turn mostly loses the same tokens as before,
and finds the rest of them in the prefix cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ContextPolicy = Literal["error", "truncate-middle", "sliding-window"]
CONTEXT_POLICIES: tuple[ContextPolicy, ...] = ("error", "truncate-middle", "sliding-window")

MOST_CONTEXTS = 16  # that an answer may have, where it asks for that many tokens

_KEPT = 8  # the beginning that is kept is one part of so many of the context
_STRIDE = 4  # likewise, what is left out at once


@dataclass(frozen=True, slots=True)
class ContextReport:
    """What was left out, and by which policy: tokens of the prompt, with the whole messages among
    them, and tokens behind which a window has moved on, so many times."""

    policy: ContextPolicy
    dropped_prompt_tokens: int = 0
    dropped_messages: int = 0
    window_moves: int = 0
    window_dropped_tokens: int = 0

    def __add__(self, other: ContextReport) -> ContextReport:
        return ContextReport(
            self.policy,
            self.dropped_prompt_tokens + other.dropped_prompt_tokens,
            self.dropped_messages + other.dropped_messages,
            self.window_moves + other.window_moves,
            self.window_dropped_tokens + other.window_dropped_tokens,
        )

    def summary(self) -> str:
        """Return what was left out, for people."""
        parts = []
        if self.dropped_prompt_tokens:
            messages = f" ({self.dropped_messages} messages)" if self.dropped_messages else ""
            parts.append(f"{self.dropped_prompt_tokens} prompt tokens left out{messages}")
        if self.window_moves:
            moves = "once" if self.window_moves == 1 else f"{self.window_moves} times"
            parts.append(f"window moved {moves}, past {self.window_dropped_tokens} tokens")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Context:
    """The ``tokens`` of a prompt and its answer together, and what becomes of more."""

    tokens: int
    policy: ContextPolicy = "error"

    @property
    def kept(self) -> int:
        """The tokens at the beginning that are never left out."""
        return self.tokens // _KEPT

    @property
    def stride(self) -> int:
        """The tokens that are left out at once."""
        return max(1, self.tokens // _STRIDE)

    def most(self, max_tokens: int | None) -> int:
        """Return the tokens that a prompt has at most once it is cut: there is room for an answer
        of ``max_tokens``, or of a stride."""
        answer = self.stride if max_tokens is None else min(max(1, max_tokens), self.stride)
        return max(1, self.tokens - answer)

    def excess(self, tokens: int, max_tokens: int | None) -> int:
        """Return how much of a prompt of so many tokens is left out, a multiple of a stride."""
        over = tokens - self.most(max_tokens)
        return -(-over // self.stride) * self.stride

    def cut(
        self, ids: Sequence[int], max_tokens: int | None
    ) -> tuple[Sequence[int], ContextReport | None]:
        """Return the ids of a prompt without their middle, and what was left out; all of them, and
        None, if they fit with an answer, or are to be refused."""
        needed = len(ids) + (max_tokens != 0)
        if self.policy == "error" or needed <= self.tokens:
            return ids, None
        dropped = min(self.excess(len(ids), max_tokens), len(ids) - self.kept - 1)
        kept = [*ids[: self.kept], *ids[self.kept + dropped :]]
        return kept, ContextReport(self.policy, dropped)
