"""Answers in phases: free text, or a block of thinking, and a grammar from some place on.

Drafts are followed up to the token that begins another phase, and no further: what the phase
allows is known once that token is accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edge_llm.runner.engine.constraints import Mask, mask_of, permits
from edge_llm.runner.guidance.markers import Markers, cut_within_character
from edge_llm.runner.guidance.matcher import Guided
from edge_llm.runner.guidance.vocabulary import Vocabulary


def _without(mask: Mask, tokens: Sequence[int]) -> Mask:
    return mask & ~mask_of(tokens, 32 * len(mask)) if tokens else mask


class Triggered:
    """Free text in which triggers begin a grammar; see `Constraint` and `Guided`.

    In free text everything is allowed but a token that completes a trigger and goes on as the
    grammar does not. Where the grammar ends, free text begins again, or nothing follows.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        triggers: Sequence[int | bytes],
        begin: Callable[[], Guided],
        *,
        at_start: bool = False,
        once: bool = False,
    ) -> None:
        """Let ``triggers``, control tokens by id or texts, begin what ``begin`` makes: the
        constraint of what comes right behind them.

        Args:
            at_start: they count at the beginning of the answer alone, but for blanks.
            once: the answer ends with the grammar.
        """
        self._vocabulary = vocabulary
        self._markers = Markers(vocabulary, triggers, at_start=at_start)
        self._begin = begin
        self._at_start = at_start
        self._once = once
        self._tail: bytes | None = b""
        self._inner: Guided | None = None
        self._ended = False
        self._refused: dict[bytes, bool] = {}  # what may be behind a trigger
        self._masks: dict[tuple[int, ...], Mask] = {}

    @property
    def finished(self) -> bool:
        """See `Constraint.finished`."""
        return self._ended

    def masks(self, path: Sequence[int]) -> list[Mask]:
        """See `Constraint.masks`."""
        if self._inner is not None:
            return self._inner.masks(path)
        masks = [self._mask(self._tail)]
        tail = self._tail
        for token in path:
            if not permits(masks[-1], token):
                break
            step = self._markers.step(tail, token)
            if step.rest is not None:
                break
            tail = step.tail
            masks.append(self._mask(tail))
        return masks

    def forced(self) -> Sequence[int]:
        """See `Constraint.forced`."""
        return () if self._inner is None else self._inner.forced()

    def accept(self, tokens: Sequence[int]) -> None:
        """See `Constraint.accept`."""
        place = 0
        while place < len(tokens):
            if self._inner is not None:
                self._inner.accept(tokens[place:])
                place = len(tokens)
            else:
                step = self._markers.step(self._tail, tokens[place])
                place += 1
                self._take(step.tail, step.rest)
        self._leave()

    def allows(self, data: bytes) -> bool:
        """See `Guided.allows`."""
        if self._inner is not None:
            return self._inner.allows(data)
        step = self._markers.read(self._tail, data)
        return step.rest is None or self._may_follow(step.rest)

    def feed(self, data: bytes) -> None:
        """See `Guided.feed`."""
        if self._inner is not None:
            self._inner.feed(data)
        else:
            step = self._markers.read(self._tail, data)
            self._take(step.tail, step.rest)
        self._leave()

    def _take(self, tail: bytes | None, rest: bytes | None) -> None:
        self._tail = tail
        if rest is not None:
            self._inner = self._begin()
            if rest:
                self._inner.feed(rest)

    def _leave(self) -> None:
        """Go over to what follows the grammar, if it has ended."""
        if self._inner is not None and self._inner.finished:
            self._ended = self._once
            self._inner = None
            self._tail = None if self._at_start else b""

    def _may_follow(self, rest: bytes) -> bool:
        known = self._refused.get(rest)
        if known is None:
            known = self._refused[rest] = not rest or self._begin().allows(rest)
        return known

    def _mask(self, tail: bytes | None) -> Mask:
        refused = tuple(
            token for token, rest in self._markers.rests(tail) if not self._may_follow(rest)
        )
        mask = self._masks.get(refused)
        if mask is None:
            mask = self._masks[refused] = _without(self._vocabulary.everything, refused)
        return mask


@dataclass(frozen=True, slots=True)
class _State:
    """Where a `Thinking` is. ``place`` counts tokens of the opening or closing that were said,
    ``spent`` those of the block, ``tail`` is as in `Markers`."""

    phase: Literal["before", "opening", "thinking", "closing", "after"]
    place: int = 0
    spent: int = 0
    tail: bytes = b""


class Thinking:
    """A block of thinking, and then another constraint, or free text; see `Constraint`.

    In the block everything is allowed; where something must come after it, everything but control
    tokens and what ends the answer. It ends with its closing, or is closed when it has taken as
    many tokens as it may."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        close: int | bytes,
        *,
        budget: int | None = None,
        then: Guided | None = None,
        opening: Sequence[int] = (),
        gap: bytes = b"",
    ) -> None:
        """Begin within a block, or before it.

        Args:
            close: the control token, by id, or the text that ends the block.
            budget: the most tokens of the block, without its closing.
            then: what the text behind the block is held to.
            opening: tokens that open the block, where the prompt has not; without them the answer
                goes on as after the block.
            gap: text between the closing and what follows, always written.
        """
        self._vocabulary = vocabulary
        self._markers = Markers(vocabulary, [close])
        self._budget = budget
        self._then = then
        self._opening = tuple(opening)
        self._gap = tuple(vocabulary.encode(gap)) if gap else ()
        shut = (close,) if isinstance(close, int) else tuple(vocabulary.encode(close))
        self._closing = (*shut, *self._gap)
        self._inside = vocabulary.everything
        if then is not None:
            named = [close] if isinstance(close, int) else []
            self._inside = vocabulary.text | mask_of(named, 32 * len(vocabulary.text))
        self._state = self._settled(_State("before" if opening else "thinking"))

    @property
    def finished(self) -> bool:
        """See `Constraint.finished`."""
        return self._state.phase == "after" and self._then is not None and self._then.finished

    def masks(self, path: Sequence[int]) -> list[Mask]:
        """See `Constraint.masks`."""
        state = self._state
        if state.phase == "after":
            if self._then is not None:
                return self._then.masks(path)
            return [self._vocabulary.everything] * (len(path) + 1)
        masks = [self._mask(state)]
        for token in path:
            if not permits(masks[-1], token):
                break
            state, _ = self._step(state, token)
            if state.phase == "after":
                break
            masks.append(self._mask(state))
        return masks

    def forced(self) -> Sequence[int]:
        """See `Constraint.forced`."""
        state = self._state
        if state.phase == "opening":
            return self._opening[state.place :]
        if state.phase == "closing":
            return self._closing[state.place :]
        return () if state.phase != "after" or self._then is None else self._then.forced()

    def accept(self, tokens: Sequence[int]) -> None:
        """See `Constraint.accept`."""
        for place, token in enumerate(tokens):
            if self._state.phase == "before" and token != self._opening[0]:
                self._state = _State("after")
            if self._state.phase == "after":
                if self._then is not None:
                    self._then.accept(tokens[place:])
                return
            self._state, rest = self._step(self._state, token)
            if self._then is not None and rest:
                self._then.feed(rest)

    def _mask(self, state: _State) -> Mask:
        """Return what may come in any phase but the last."""
        words = 32 * len(self._vocabulary.text)
        match state.phase:
            case "opening":
                return mask_of(self._opening[state.place : state.place + 1], words)
            case "closing":
                return mask_of(self._closing[state.place : state.place + 1], words)
            case "before":
                if self._then is None:
                    return self._vocabulary.everything
                return self._then.masks(())[0] | mask_of(self._opening[:1], words)
        if self._then is None:
            return self._inside
        refused = [t for t, rest in self._markers.rests(state.tail) if not self._then_allows(rest)]
        return _without(self._inside, refused)

    def _step(self, state: _State, token: int) -> tuple[_State, bytes]:
        """Return where ``token`` leads, and what of it belongs to what comes after the block."""
        if state.phase == "before" and token != self._opening[0]:
            return _State("after"), b""
        if state.phase in ("before", "opening"):
            place = state.place + 1
            if place == len(self._opening):
                return self._settled(_State("thinking")), b""
            return _State("opening", place), b""
        if state.phase == "closing":
            return self._settled(replace(state, place=state.place + 1)), b""
        step = self._markers.step(state.tail, token)
        if step.rest is None:
            said = _State("thinking", spent=state.spent + 1, tail=step.tail or b"")
            return self._settled(said), b""
        if rest := step.rest.lstrip():
            return _State("after"), rest
        gap = () if step.rest else self._gap  # blanks that came with the closing are the gap
        return self._settled(_State("closing", place=len(self._closing) - len(gap))), b""

    def _settled(self, state: _State) -> _State:
        """Return ``state``, or the one that it goes over to without another token."""
        if state.phase == "closing" and state.place == len(self._closing):
            return _State("after")
        if (
            state.phase == "thinking"
            and self._budget is not None
            and state.spent >= self._budget
            # Not within a character, if that comes to an end.
            and (state.spent > self._budget + 3 or not cut_within_character(state.tail))
        ):
            return _State("closing")
        return state

    def _then_allows(self, rest: bytes) -> bool:
        rest = rest.lstrip()
        return not rest or self._then is None or self._then.allows(rest)
