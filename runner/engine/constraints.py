"""Constraints: which tokens can follow in a request, decided by something outside the engine.

The engine knows no grammar. Before a row is sampled it asks for the row's mask; along a draft it
asks for the masks of the whole path at once. What was accepted is told afterwards, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

# [ceil(vocab / 32)] uint32; bit i of the whole says that id i may be sampled.
Mask: TypeAlias = NDArray[np.uint32]


class Constraint(Protocol):
    """Decides what a request may sample. One object serves one request; all calls come from the
    engine's thread, one at a time. An error that it raises ends its request alone."""

    @property
    def finished(self) -> bool:
        """True if nothing can follow what was accepted: the answer is complete, and ends even
        where no id would say so. Nothing else is called from then on."""

    def masks(self, path: Sequence[int]) -> list[Mask]:
        """Return the mask of the next row, then that of the row after each token of ``path``.

        The list has 1 to ``len(path) + 1`` entries; it ends before the first token of the path
        that is not allowed, and before one after which nothing can follow. Tokens of the path are
        proposed, not accepted: the call leaves the constraint as it was, so that whoever walks the
        path to know its masks goes back.
        """

    def forced(self) -> Sequence[int]:
        """Return tokens that come next whatever the model says, as far as they are known at little
        cost; none is fine. They are proposed as a draft, so that they take one step together."""

    def accept(self, tokens: Sequence[int]) -> None:
        """Take in tokens that were sampled and now follow those accepted before. An id that ends
        the answer is not among them."""


class AllowedSequences:
    """Holds an answer to one of a fixed set of token sequences."""

    def __init__(
        self, sequences: Iterable[Sequence[int]], *, end_ids: Iterable[int], vocab: int
    ) -> None:
        """Allow the ids ``end_ids`` where one of ``sequences`` is complete."""
        self._sequences = list(dict.fromkeys(tuple(sequence) for sequence in sequences))
        self._end_ids = tuple(end_ids)
        self._vocab = vocab
        self._accepted: tuple[int, ...] = ()

    @property
    def finished(self) -> bool:
        """See `Constraint.finished`."""
        return self._going_on(self._accepted) == [self._accepted]

    def masks(self, path: Sequence[int]) -> list[Mask]:
        """See `Constraint.masks`."""
        masks: list[Mask] = []
        for length in range(len(path) + 1):
            begun = (*self._accepted, *path[:length])
            going_on = self._going_on(begun)
            if not going_on or (masks and going_on == [begun]):
                break
            masks.append(mask_of(self._following(begun), self._vocab))
        return masks

    def forced(self) -> Sequence[int]:
        """See `Constraint.forced`."""
        begun = list(self._accepted)
        while len(following := self._following(tuple(begun))) == 1:
            if (token := following.pop()) in self._end_ids:
                break
            begun.append(token)
        return begun[len(self._accepted) :]

    def accept(self, tokens: Sequence[int]) -> None:
        """See `Constraint.accept`."""
        self._accepted += tuple(tokens)

    def _going_on(self, begun: tuple[int, ...]) -> list[tuple[int, ...]]:
        return [item for item in self._sequences if item[: len(begun)] == begun]

    def _following(self, begun: tuple[int, ...]) -> set[int]:
        size = len(begun)
        going_on = self._going_on(begun)
        following = {item[size] for item in going_on if len(item) > size}
        if any(len(item) == size for item in going_on):
            following.update(self._end_ids)
        return following


def mask_of(ids: Iterable[int], vocab: int) -> Mask:
    """Return the mask that allows ``ids`` of ``vocab``."""
    bits = np.zeros(-(-vocab // 32) * 32, np.uint8)
    bits[ids if isinstance(ids, np.ndarray) else list(ids)] = 1
    return np.packbits(bits, bitorder="little").view(np.uint32)


def permits(mask: Mask, token: int) -> bool:
    """Return whether a mask allows a token."""
    return bool(mask[token // 32] >> token % 32 & 1)


def check_masks(masks: Sequence[Mask], drafted: int, vocab: int) -> None:
    """Check what a constraint returned for a path of ``drafted`` tokens.

    Raises:
        ValueError: a wrong number of masks, or one of a wrong shape or type.
    """
    if not 1 <= len(masks) <= drafted + 1:
        raise ValueError(f"{len(masks)} masks, expected 1 to {drafted + 1}")
    for mask in masks:
        if mask.dtype != np.uint32 or mask.shape != (-(-vocab // 32),):
            raise ValueError(
                f"a mask is {mask.dtype} {mask.shape}, expected uint32 ({-(-vocab // 32)},)"
            )
