"""The drafts of an engine: who proposes them, what of them can be computed, and what they cost.

Tokens that a draft method or a draft program is to give are `UNKNOWN` until the step that checks
them is scheduled, so that it has the blocks for them.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from itertools import takewhile

from edge_llm.errors import RequestError
from edge_llm.runner.engine.draft_program import DraftProgram
from edge_llm.runner.engine.drafters import (
    MOST_DRAWN,
    MOST_TOKENS,
    UNKNOWN,
    AutoDrafter,
    Drafter,
    ForcedDrafter,
    MethodDrafter,
    NgramDrafter,
    ProgramDrafter,
)
from edge_llm.runner.engine.payoff import Payoff
from edge_llm.runner.engine.requests import EngineFacts
from edge_llm.runner.engine.scheduler import Step
from edge_llm.runner.engine.sequence import Sequence
from edge_llm.runner.executor import StepResult


class Drafts:
    """Gives sequences their drafters, and their drafts before each step."""

    def __init__(self, facts: EngineFacts, program: DraftProgram | None = None) -> None:
        """``program`` gives drafts; else the draft method does, if it is loaded."""
        self._facts = facts
        self._program = program
        self._payoff = Payoff()
        self._spent = 0.0  # seconds, on the drafts of the step that was begun

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
            if self._program is not None:
                return MethodDrafter(MOST_DRAWN)
            if not self._facts.drafts:
                raise RequestError(
                    "speculation is draft, but neither a draft method nor a draft program is "
                    "loaded",
                    hint="edge_llm.load(…, draft=True), or serve --draft, loads that of a program "
                    "which has one; draft=NAME, or --draft NAME, a smaller program beside it",
                    param="speculation",
                )
            return MethodDrafter()
        if speculation == "auto":
            return AutoDrafter(self._payoff, self._predicting())
        return NgramDrafter() if speculation == "ngram" else None

    def _predicting(self) -> Drafter | None:
        """Return what is asked where nothing was said before."""
        program = self._program
        if program is None:
            return MethodDrafter() if self._facts.drafts else None
        payoff = self._payoff
        return ProgramDrafter(
            payoff, lambda: program.seconds / payoff.seconds if payoff.seconds else 0.0
        )

    def propose(
        self,
        running: Iterable[Sequence],
        ending: Callable[[Sequence, str], AbstractContextManager[None]],
    ) -> None:
        """Ask for the drafts of the next step. ``ending`` ends a sequence whose drafter fails."""
        decoding = [sequence for sequence in running if sequence.decoding]
        self._payoff.begin(len(decoding))
        behind: list[Sequence] = []
        for sequence in decoding:
            drafter = sequence.drafter
            if drafter is None:
                continue
            most = min(MOST_TOKENS, sequence.room - 1)
            with ending(sequence, "drafter"):
                draft = drafter.propose(sequence.tokens, most) if most > 0 else ()
                draft = draft[:most]
                predicts = self._facts.drafts or self._program is not None
                unknown = predicts and all(token == UNKNOWN for token in draft)
                sequence.draft = draft if unknown else self._usable(sequence, draft)
                program = self._program if unknown and draft else None
                if program is not None and not program.ready(sequence, len(draft)):
                    sequence.draft = ()
                    behind.append(sequence)
        if self._program is not None and behind:
            self._program.catch_up(behind)

    def predict(
        self, step: Step, predicted: Callable[[Mapping[Sequence, list[int]]], StepResult]
    ) -> None:
        """Replace the unknown tokens of the drafts in ``step`` by what the draft program predicts,
        or the draft method by ``predicted``, one of each at a time; a draft ends before what
        nothing follows."""
        begun = time.perf_counter()
        unknown = {s: part for s, part in step.slices.items() if UNKNOWN in part.draft}
        drafts: dict[Sequence, list[int]] = {sequence: [] for sequence in unknown}
        growing = dict(drafts)
        while growing:
            if self._program is not None:
                tokens = self._program.predicted(growing)
            else:
                ids = predicted(growing).ids.tolist()
                tokens = dict(zip(growing, ids, strict=True))
            for sequence in list(growing):
                usable = self._usable(sequence, [tokens[sequence]] if sequence in tokens else [])
                drafts[sequence] += usable
                if not usable or len(drafts[sequence]) == len(unknown[sequence].draft):
                    del growing[sequence]
        for sequence, part in unknown.items():
            step.draft(part, drafts[sequence])
        self._spent = time.perf_counter() - begun

    def record(self, tokens: int, seconds: float) -> None:
        """Note how long a step of so many tokens took that had no prompt in it, its drafts
        included."""
        self._payoff.record(tokens, seconds - self._spent)

    def forget(self, sequence: Sequence) -> None:
        """Give back what is kept for the drafts of a sequence that has ended."""
        if self._program is not None:
            self._program.forget(sequence)

    def close(self) -> None:
        """Close the draft program."""
        if self._program is not None:
            self._program.close()

    def _usable(self, sequence: Sequence, draft: Iterable[int]) -> list[int]:
        """Return the beginning of ``draft`` that can be computed: nothing follows a stop id."""
        tokens = map(operator.index, draft)
        return list(
            takewhile(lambda t: t not in sequence.stop_ids and 0 <= t < self._facts.vocab, tokens)
        )
