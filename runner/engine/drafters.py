"""Drafters: they propose tokens that may follow, for the model to check several in one step.

A draft never changes a result: a row behind a proposed token counts only if the token before it is
what the sampler has drawn, with the same random number that it would have drawn without a draft.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from edge_llm.runner.engine.constraints import Constraint
from edge_llm.runner.engine.lookup import Lookup, following
from edge_llm.runner.engine.payoff import Payoff

MOST_TOKENS = 16  # of a draft
MOST_PREDICTED = 3  # likewise, where each costs a step of the draft method
MOST_DRAWN = 8  # likewise, of a draft program
UNKNOWN = -1  # a token of a draft that the draft method or program is yet to give
_DRAWN_CHANCE = 0.6  # that a token of a draft program is right, before any was checked
_DRAWN_COST = 0.2  # of a step, a token of it, before it is measured
_TRIAL = 2  # tokens, where drafts have not paid
_LEAST_PAUSE, _MOST_PAUSE = 16, 256  # steps before one
_CHANCES = {2: 0.2, 3: 0.35, 4: 0.5, 6: 0.65, 12: 0.85}  # that what followed a match follows again
_LEARNED = 1 / 12  # weight of one token in such a chance


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
    """Proposes what followed the longest recent match of the last tokens, in prompt and answer."""

    def __init__(self, most: int = MOST_TOKENS) -> None:
        self._length = DraftLength(most)
        self._lookup = Lookup()

    def propose(self, tokens: Sequence[int], most: int) -> Sequence[int]:
        """See `Drafter.propose`."""
        match = self._lookup.best(tokens)
        count = min(most, self._length.next())
        if count <= 0 or match is None:
            return ()
        return following(tokens, match.place, count)

    def accept(self, drafted: int, accepted: int) -> None:
        """See `Drafter.accept`."""
        self._length.learn(drafted, accepted)


class AutoDrafter:
    """Proposes what `NgramDrafter` does, as much of it as pays: how often a match is right is
    learned from what comes, checked or not, and what checking costs is measured. Where it proposes
    nothing, it asks another drafter, if there is one."""

    def __init__(self, payoff: Payoff, other: Drafter | None = None) -> None:
        self._payoff = payoff
        self._other = other
        self._asked: Drafter | None = None  # the other, if the draft under way is its
        self._lookup = Lookup()
        self._chances = dict(_CHANCES)  # by the size of the match, at least
        self._size = 0  # of the last match, as a key of the chances
        self._guess: tuple[int, int] | None = None  # a position, and its token as looked up

    def propose(self, tokens: Sequence[int], most: int) -> Sequence[int]:
        """See `Drafter.propose`."""
        if self._guess is not None:
            position, token = self._guess
            self._learn(tokens[position] == token)
            self._guess = None
        self._asked = None
        match = self._lookup.best(tokens)
        if match is not None:
            self._size = max(size for size in self._chances if size <= match.size)
            count = self._payoff.length(self._chances[self._size], min(most, MOST_TOKENS))
            if count:
                return following(tokens, match.place, count)
            self._guess = len(tokens), tokens[match.place]
        self._asked = self._other
        return () if self._other is None else self._other.propose(tokens, most)

    def accept(self, drafted: int, accepted: int) -> None:
        """See `Drafter.accept`."""
        if self._asked is not None:
            self._asked.accept(drafted, accepted)
            return
        for _ in range(accepted):
            self._learn(right=True)
        if accepted < drafted:
            self._learn(right=False)

    def _learn(self, right: bool) -> None:
        chance = self._chances[self._size]
        self._chances[self._size] = chance + (right - chance) * _LEARNED


class ProgramDrafter:
    """Asks a draft program, for as much as pays by how often it was right, by what its steps take
    and by what checking costs: nothing, where that does not pay, but for a trial now and then. Like
    `MethodDrafter` it proposes tokens that are not known yet."""

    def __init__(self, payoff: Payoff, cost: Callable[[], float]) -> None:
        """``cost`` returns what a token of a draft takes, in steps of one token; 0: not known."""
        self._payoff = payoff
        self._cost = cost
        self._chance = _DRAWN_CHANCE
        self._pause = 0
        self._next_pause = _LEAST_PAUSE
        self._trial = False

    def propose(self, tokens: Sequence[int], most: int) -> Sequence[int]:
        """See `Drafter.propose`. A trial comes after a pause, and goes on until its draft was
        checked: the program has to catch up first."""
        if self._pause:
            self._pause -= 1
            return ()
        most = min(most, MOST_DRAWN)
        count = self._payoff.length(self._chance, most, self._cost() or _DRAWN_COST)
        if count:
            self._trial, self._next_pause = False, _LEAST_PAUSE
        elif self._trial:
            count = min(most, _TRIAL)
        else:
            self._trial, self._pause = True, self._next_pause
            self._next_pause = min(2 * self._next_pause, _MOST_PAUSE)
        return (UNKNOWN,) * count

    def accept(self, drafted: int, accepted: int) -> None:
        """See `Drafter.accept`."""
        for right in (True,) * accepted + (False,) * (accepted < drafted):
            self._chance += (right - self._chance) * _LEARNED
        # Where drafts are right more and more often there is more to learn; where they are as right
        # as that, they cost too much, which a trial does not change.
        self._trial &= accepted == drafted and self._chance < _DRAWN_CHANCE


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
