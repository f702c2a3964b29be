"""Constraints made of others: one or another, whichever the answer turns out to follow, and one
behind a head that is always written."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from edge_llm.runner.engine.constraints import Mask, mask_of, permits
from edge_llm.runner.guidance.matcher import Guided
from edge_llm.runner.guidance.vocabulary import Vocabulary


class Either:
    """Holds an answer to one of two constraints, for as long as it may still become either; see
    `Constraint` and `Guided`."""

    def __init__(self, vocabulary: Vocabulary, first: Guided, second: Guided) -> None:
        """Take over both."""
        self._ends = vocabulary.ends
        self._possible = [first, second]

    @property
    def finished(self) -> bool:
        """See `Constraint.finished`."""
        return all(constraint.finished for constraint in self._possible)

    def masks(self, path: Sequence[int]) -> list[Mask]:
        """See `Constraint.masks`."""
        lists = [
            # Where one has finished and the other goes on, the answer may end.
            [self._ends] if constraint.finished else constraint.masks(path)
            for constraint in self._possible
        ]
        masks: list[Mask] = []
        for place, together in enumerate(zip_longest(*lists)):
            there = [mask for mask in together if mask is not None]
            masks.append(there[0] | there[1] if len(there) > 1 else there[0])
            # One that allows a token and has no mask behind it may be complete there, so that the
            # answer may end: that is known once the token is accepted.
            if place < len(path) and any(
                len(own) == place + 1 and permits(own[place], path[place]) for own in lists
            ):
                break
        return masks

    def forced(self) -> Sequence[int]:
        """See `Constraint.forced`."""
        return self._possible[0].forced() if len(self._possible) == 1 else ()

    def accept(self, tokens: Sequence[int]) -> None:
        """See `Constraint.accept`."""
        if tokens and len(self._possible) > 1:
            self._possible = [one for one in self._possible if _may_accept(one, tokens)]
        for constraint in self._possible:
            constraint.accept(tokens)

    def allows(self, data: bytes) -> bool:
        """See `Guided.allows`."""
        return any(not one.finished and one.allows(data) for one in self._possible)

    def feed(self, data: bytes) -> None:
        """See `Guided.feed`."""
        self._possible = [one for one in self._possible if not one.finished and one.allows(data)]
        for constraint in self._possible:
            constraint.feed(data)


class Headed:
    """Fixed tokens, and then another constraint; see `Constraint` and `Guided`."""

    def __init__(self, vocabulary: Vocabulary, head: Sequence[int], then: Guided) -> None:
        """Take over ``then``."""
        self._ids = 32 * len(vocabulary.everything)
        self._left = tuple(head)
        self._then = then

    @property
    def finished(self) -> bool:
        """See `Constraint.finished`."""
        return not self._left and self._then.finished

    def masks(self, path: Sequence[int]) -> list[Mask]:
        """See `Constraint.masks`; along a path no further than to the end of the head."""
        if not self._left:
            return self._then.masks(path)
        masks = [mask_of(self._left[:1], self._ids)]
        for token, expected, following in zip(path, self._left, self._left[1:], strict=False):
            if token != expected:
                break
            masks.append(mask_of([following], self._ids))
        return masks

    def forced(self) -> Sequence[int]:
        """See `Constraint.forced`."""
        return self._left or self._then.forced()

    def accept(self, tokens: Sequence[int]) -> None:
        """See `Constraint.accept`."""
        said = min(len(tokens), len(self._left))
        self._left = self._left[said:]
        if rest := tokens[said:]:
            self._then.accept(rest)

    def allows(self, data: bytes) -> bool:
        """See `Guided.allows`: the head is no text."""
        return not self._left and self._then.allows(data)

    def feed(self, data: bytes) -> None:
        """See `Guided.feed`."""
        self._then.feed(data)


def _may_accept(constraint: Guided, tokens: Sequence[int]) -> bool:
    """Return whether tokens that are not accepted yet can be."""
    if constraint.finished:
        return False
    *before, last = tokens
    masks = constraint.masks(before)
    return len(masks) == len(tokens) and permits(masks[-1], last)
