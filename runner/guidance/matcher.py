"""A grammar along one answer: the constraint that all others are made around."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edge_llm.errors import GenerationError
from edge_llm.runner.engine.constraints import Constraint, Mask, permits
from edge_llm.runner.guidance.vocabulary import Vocabulary

if TYPE_CHECKING:
    from llguidance import LLMatcher

_STUCK = "no token of the vocabulary can go on in this grammar"


class Guided(Constraint, Protocol):
    """A constraint that also takes text: the rest of a token of which only the beginning belonged
    to what came before."""

    def allows(self, data: bytes) -> bool:
        """Return whether the answer may go on with ``data``."""

    def feed(self, data: bytes) -> None:
        """Take in text that `allows`."""


class GrammarConstraint:
    """Holds an answer to a grammar; see `Constraint` and `Guided`.

    The mask after what was accepted is kept until more is accepted: whether anything can follow
    is known by it alone."""

    def __init__(self, matcher: LLMatcher, vocabulary: Vocabulary) -> None:
        """Begin at the beginning of ``matcher``, which is this object's from now on."""
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._known = False  # whether `_mask` is up to date
        self._mask: Mask | None = None

    @property
    def finished(self) -> bool:
        """See `Constraint.finished`."""
        return self._current() is None

    def masks(self, path: Sequence[int]) -> list[Mask]:
        """See `Constraint.masks`.

        Raises:
            GenerationError: the grammar is too complex here, or no token can go on.
        """
        mask = self._current()
        if mask is None:
            raise GenerationError("nothing can follow in this grammar")
        masks = [mask]
        walked = 0
        for token in path:
            if token in self._vocabulary.end_ids or not permits(mask, token):
                break
            self._consume([token])
            walked += 1
            if (following := self._compute()) is None:
                break
            masks.append(mask := following)
        if walked and not self._matcher.rollback(walked):
            raise self._error()
        return masks

    def accept(self, tokens: Sequence[int]) -> None:
        """See `Constraint.accept`.

        Raises:
            GenerationError: the grammar does not allow them.
        """
        if tokens:
            self._known = False
            self._consume(tokens)

    def forced(self) -> Sequence[int]:
        """See `Constraint.forced`."""
        mask = self._current()
        if mask is None or np.count_nonzero(mask) != 1:
            return ()
        word = int(mask.argmax())
        bits = int(mask[word])
        if bits & bits - 1:
            return ()
        return self._matcher.compute_ff_tokens() or (32 * word + bits.bit_length() - 1,)

    def allows(self, data: bytes) -> bool:
        """See `Guided.allows`."""
        tokens = self._vocabulary.spell(data)
        return tokens is not None and self._matcher.validate_tokens(tokens) == len(tokens)

    def feed(self, data: bytes) -> None:
        """See `Guided.feed`."""
        self.accept(self._vocabulary.spell(data) or ())

    def _current(self) -> Mask | None:
        """Return the mask of the next row, None if nothing can follow."""
        if not self._known:
            self._mask = self._compute()
            self._known = True
        return self._mask

    def _compute(self) -> Mask | None:
        matcher, vocabulary = self._matcher, self._vocabulary
        if matcher.is_stopped():
            if matcher.is_error():
                raise self._error()
            return None
        mask = np.empty(vocabulary.words, np.uint32)
        matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        if matcher.is_error():
            raise self._error()
        mask = mask[: len(vocabulary.everything)]
        mask[-1] &= vocabulary.everything[-1]  # of an end that is no id of the model
        if matcher.is_accepting() and not (mask & ~vocabulary.ends).any():
            return None
        if not mask.any():
            raise GenerationError(_STUCK)
        return mask

    def _consume(self, tokens: Sequence[int]) -> None:
        if not self._matcher.consume_tokens(list(tokens)):
            raise self._error()

    def _error(self) -> GenerationError:
        reason = self._matcher.get_error().partition("\n<")[0]
        if reason.startswith("NoExtension"):
            return GenerationError(_STUCK)
        return GenerationError(f"the grammar failed: {reason:.300}")
