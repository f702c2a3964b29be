"""The drafts of an engine: who proposes them, what of them can be computed, and what they cost."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from itertools import takewhile

from edge_llm.errors import RequestError
from edge_llm.runner.engine.drafters import (
    MOST_TOKENS,
    UNKNOWN,
    AutoDrafter,
    Drafter,
    ForcedDrafter,
    MethodDrafter,
    NgramDrafter,
)
from edge_llm.runner.engine.payoff import Payoff
from edge_llm.runner.engine.requests import EngineFacts
from edge_llm.runner.engine.scheduler import Step
from edge_llm.runner.engine.sequence import Sequence
from edge_llm.runner.executor import StepResult


class Drafts:
    """Gives sequences their drafters, and their drafts before each step."""

    def __init__(self, facts: EngineFacts) -> None:
        self._facts = facts
        self._payoff = Payoff()

    def drafter(self, sequence: Sequence, speculation: str, own: Drafter | None) -> Drafter | None:
        """Return what proposes for ``sequence``: its ``own``, or what ``speculation`` asks for, and
        before either what a constraint leaves no choice about.

        Raises:
            RequestError: it has processors, which a draft would be ahead of, and asks for drafts;
                or for those of the draft method, which is not loaded.
        """
        if sequence.processors:
            if own is not None or speculation not in ("auto", "off"):
                raise RequestError(
                    "logits_processors cannot be had together with speculation",
                    param="logits_processors",
                )
            return None
        found = self._asked(speculation) if own is None else own
        if sequence.constraint is None:
            return found
        return ForcedDrafter(sequence.constraint, found)

    def _asked(self, speculation: str) -> Drafter | None:
        if speculation == "draft":
            if not self._facts.drafts:
                raise RequestError(
                    "speculation is draft, but no draft method is loaded",
                    hint="edge_llm.load(…, draft=True), or serve --draft, loads that of a program "
                    "which has one",
                    param="speculation",
                )
            return MethodDrafter()
        if speculation == "auto":
            return AutoDrafter(self._payoff, MethodDrafter() if self._facts.drafts else None)
        return NgramDrafter() if speculation == "ngram" else None

    def propose(
        self,
        running: Iterable[Sequence],
        ending: Callable[[Sequence, str], AbstractContextManager[None]],
    ) -> None:
        """Ask for the drafts of the next step. ``ending`` ends a sequence whose drafter fails."""
        decoding = [sequence for sequence in running if sequence.decoding]
        self._payoff.begin(len(decoding))
        for sequence in decoding:
            drafter = sequence.drafter
            if drafter is None:
                continue
            most = min(MOST_TOKENS, sequence.room - 1)
            with ending(sequence, "drafter"):
                draft = drafter.propose(sequence.tokens, most) if most > 0 else ()
                draft = draft[:most]
                unknown = self._facts.drafts and all(token == UNKNOWN for token in draft)
                sequence.draft = draft if unknown else self._usable(sequence, draft)

    def predict(
        self, step: Step, predicted: Callable[[Mapping[Sequence, list[int]]], StepResult]
    ) -> None:
        """Replace the unknown tokens of the drafts in ``step`` by what the draft method predicts,
        one of each at a time; a draft ends before what nothing follows."""
        unknown = {s: part for s, part in step.slices.items() if UNKNOWN in part.draft}
        drafts: dict[Sequence, list[int]] = {sequence: [] for sequence in unknown}
        growing = dict(drafts)
        while growing:
            result = predicted(growing)
            for sequence, token in zip(list(growing), result.ids.tolist(), strict=True):
                usable = self._usable(sequence, [token])
                drafts[sequence] += usable
                if not usable or len(drafts[sequence]) == len(unknown[sequence].draft):
                    del growing[sequence]
        for sequence, part in unknown.items():
            step.draft(part, drafts[sequence])

    def record(self, tokens: int, seconds: float) -> None:
        """Note how long a step of so many tokens took that had no prompt in it."""
        self._payoff.record(tokens, seconds)

    def _usable(self, sequence: Sequence, draft: Iterable[int]) -> list[int]:
        """Return the beginning of ``draft`` that can be computed: nothing follows a stop id."""
        tokens = map(operator.index, draft)
        return list(
            takewhile(lambda t: t not in sequence.stop_ids and 0 <= t < self._facts.vocab, tokens)
        )
