"""Drafters: they propose tokens that may follow, for the model to check several in one step.

A draft never changes a result: a row behind a proposed token counts only if the token before it is
what the sampler has drawn, with the same random number that it would have drawn without a draft.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Protocol

from edge_llm.runner.engine.constraints import Constraint

MOST_TOKENS = 16  # of a draft
MOST_PREDICTED = 3  # likewise, where each costs a step of the draft method
UNKNOWN = -1  # a token of a draft that the program's draft method is yet to give
_LOOKED_AT = 16  # earlier places with the same last two tokens
_LONGEST_MATCH = 32  # tokens that are compared


class Drafter(Protocol):
    """Proposes tokens for one request. All calls come from the engine's thread, one at a time. An
    error that it raises ends its request alone."""

    def propose(self, tokens: Sequence[int], most: int) -> Sequence[int]:
        """Return up to ``most`` ids that may follow ``tokens``, which are the prompt and all that
        was accepted: those of the call before, and more."""

    def accept(self, drafted: int, accepted: int) -> None:
        """Learn that of ``drafted`` proposed tokens the first ``accepted`` were right. Fewer may
        have been drafted than were proposed, where a step had no more room."""


class DraftLength:
    """How much to propose: more while drafts are right, less when they are not, and after several
    that were wrong from the beginning nothing for a while."""

    def __init__(self, most: int = MOST_TOKENS) -> None:
        self._most = most
        self._length = min(4, most)
        self._misses = 0  # in a row
        self._pause = 0

    def next(self) -> int:
        """Return the tokens to propose now."""
        if self._pause:
            self._pause -= 1
            return 0
        return self._length

    def learn(self, drafted: int, accepted: int) -> None:
        """Adapt to what became of a draft."""
        if accepted == drafted:
            self._length = min(self._most, 2 * max(self._length, drafted))
        else:
            self._length = max(1, accepted + 1)
        self._misses = 0 if accepted else self._misses + 1
        self._pause = min(self._misses // 2, self._most)


class NgramDrafter:
    """Proposes what followed the longest recent match of the last tokens, in prompt and answer.

    Places with equal last two tokens are chained, newest first, so that a new token costs the same
    after a long text as after a short one."""

    def __init__(self, most: int = MOST_TOKENS) -> None:
        self._length = DraftLength(most)
        self._newest: dict[tuple[int, int], int] = {}  # pair -> the position after it
        self._older = array("i")  # position -> the one before it with the same pair, or -1

    def propose(self, tokens: Sequence[int], most: int) -> Sequence[int]:
        """See `Drafter.propose`."""
        self._index(tokens)
        count = min(most, self._length.next())
        if count <= 0 or len(tokens) < 2:
            return ()
        place = self._best_match(tokens)
        if place < 0:
            return ()
        period = len(tokens) - place  # what has no end yet is taken to go on as it began
        if period >= count:
            return tokens[place : place + count]
        return [tokens[place + i % period] for i in range(count)]

    def accept(self, drafted: int, accepted: int) -> None:
        """See `Drafter.accept`."""
        self._length.learn(drafted, accepted)

    def _index(self, tokens: Sequence[int]) -> None:
        """Chain the places up to the last token, after which nothing is known yet."""
        for place in range(len(self._older), len(tokens)):
            if place < 2:
                self._older.append(-1)
                continue
            pair = (tokens[place - 2], tokens[place - 1])
            self._older.append(self._newest.get(pair, -1))
            self._newest[pair] = place

    def _best_match(self, tokens: Sequence[int]) -> int:
        """Return the position after the earlier text that most of the last tokens repeat; -1 if
        there is none."""
        end = len(tokens)
        best, longest = -1, 1
        place = self._newest.get((tokens[end - 2], tokens[end - 1]), -1)
        for _ in range(_LOOKED_AT):
            if place < 0:
                break
            # Only a match longer than the best one is of interest.
            size = 2
            while (
                size < _LONGEST_MATCH
                and size < place
                and (tokens[place - 1 - size] == tokens[end - 1 - size])
            ):
                size += 1
            if size > longest:
                best, longest = place, size
            if size == _LONGEST_MATCH:
                break
            place = self._older[place]
        return best


class MethodDrafter:
    """Asks the program's draft method: it proposes how many tokens there may be, all of them
    `UNKNOWN`, and the engine finds out which, once the step has the blocks for them."""

    def __init__(self, most: int = MOST_PREDICTED) -> None:
        self._length = DraftLength(most)

    def propose(self, tokens: Sequence[int], most: int) -> Sequence[int]:
        """See `Drafter.propose`."""
        return (UNKNOWN,) * min(most, self._length.next())

    def accept(self, drafted: int, accepted: int) -> None:
        """See `Drafter.accept`."""
        self._length.learn(drafted, accepted)


class ForcedDrafter:
    """Proposes what a constraint leaves no choice about; elsewhere it asks another drafter."""

    def __init__(self, constraint: Constraint, other: Drafter | None) -> None:
        self._constraint = constraint
        self._other = other
        self._asked: Drafter | None = None  # whose draft is under way

    def propose(self, tokens: Sequence[int], most: int) -> Sequence[int]:
        """See `Drafter.propose`."""
        self._asked = None
        forced = self._constraint.forced()
        if forced or self._other is None:
            return forced
        self._asked = self._other
        return self._other.propose(tokens, most)

    def accept(self, drafted: int, accepted: int) -> None:
        """See `Drafter.accept`."""
        if self._asked is not None:
            self._asked.accept(drafted, accepted)
