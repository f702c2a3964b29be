"""Who runs next. Pure policy: no arithmetic, no I/O, neither torch nor numpy.

A step holds one token of each sequence that decodes, then chunks of prompts, oldest first, until
its budget of tokens is reached: that bounds the wait between two tokens of a running sequence.

A waiting sequence is admitted, in order of arrival, when the pages for its tokens and for the next
``RESERVE_TOKENS`` (or fewer, if it may not write that many) are there beyond what running sequences
have reserved in the same way. Short answers therefore never run out of pages; long ones may, and
then the youngest sequence gives its pages back and is computed again later. The oldest is never
preempted and every sequence fits the pool alone, so all of them finish.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field

from edge_llm.runner.pages import ROOT, PagePool, extend_chain
from edge_llm.runner.sequence import Sequence

RESERVE_TOKENS = 512


@dataclass(slots=True)
class Step:
    """``copies`` (source page, target page) come first, in order; then ``slices``: the next so many
    tokens of each sequence."""

    copies: list[tuple[int, int]] = field(default_factory=list)
    slices: dict[Sequence, int] = field(default_factory=dict)


class Scheduler:
    """Holds the sequences, waiting and running, each in order of arrival."""

    def __init__(
        self, pool: PagePool, *, max_sequences: int, step_tokens: int, max_rows: int
    ) -> None:
        self._pool = pool
        self._max_sequences = max_sequences
        self._step_tokens = self._budget = step_tokens
        self._max_rows = max_rows
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.preemptions = 0

    def add(self, sequence: Sequence) -> None:
        extend_chain(sequence.chain, sequence.tokens, self._pool.page_tokens)
        insort(self.waiting, sequence, key=lambda other: other.arrival)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, whatever it was doing; its pages come back at once."""
        for group in (self.running, self.waiting):
            if sequence in group:
                group.remove(sequence)
        self._give_back(sequence)

    def schedule(self, budget: int | None = None) -> Step:
        """The next step, of at most ``budget`` tokens (None: ``step_tokens``), which must not be
        less than ``max_sequences``. It holds at least one token if there is any sequence at all.
        An evaluation that asks for chunks gets them whole."""
        self._budget = self._step_tokens if budget is None else min(budget, self._step_tokens)
        step = Step()
        for decoding in (True, False):
            for sequence in list(self.running):
                if (sequence.remaining == 1) == decoding and sequence in self.running:
                    self._add_slice(step, sequence)
        while self.waiting and len(self.running) < self._max_sequences:
            sequence = self.waiting[0]
            if self._room(step, sequence) is None or not self._admit(sequence, step):
                break
            self._add_slice(step, sequence)
        return step

    def advance(self, sequence: Sequence, count: int) -> None:
        """Notes that the next ``count`` tokens of ``sequence`` were computed."""
        size = self._pool.page_tokens
        first = sequence.computed // size
        sequence.computed += count
        extend_chain(sequence.chain, sequence.tokens, size)
        for index in range(first, self._pool.pages_for(sequence.computed)):
            end = (index + 1) * size
            self._pool.record(
                sequence.pages[index],
                sequence.chain[index - 1] if index else ROOT,
                sequence.tokens[index * size : min(end, sequence.computed)],
                sequence.chain[index] if end <= sequence.computed else None,
            )

    def _room(self, step: Step, sequence: Sequence) -> tuple[int, int] | None:
        """Tokens and rows that the step can still take of ``sequence``, None if it is full. Every
        sequence counts as one row, those that want every row as one a token."""
        rows = sum(count if s.every_row else 1 for s, count in step.slices.items())
        budget = self._budget if sequence.chunk is None else self._step_tokens
        tokens = budget - sum(step.slices.values())
        return (tokens, self._max_rows - rows) if tokens > 0 and rows < self._max_rows else None

    def _add_slice(self, step: Step, sequence: Sequence) -> None:
        room = self._room(step, sequence)
        if room is None:
            return
        tokens, rows = room
        count = min(sequence.remaining, tokens)
        if sequence.every_row:
            count = min(count, rows, count if sequence.chunk is None else sequence.chunk)
        if self._grow(sequence, sequence.computed + count, step):
            step.slices[sequence] = count

    def _grow(self, sequence: Sequence, tokens: int, step: Step) -> bool:
        """Gives ``sequence`` the pages for its first ``tokens`` tokens; False if it was the
        youngest itself and had to go."""
        missing = self._pool.pages_for(tokens) - len(sequence.pages)
        while (pages := self._pool.allocate(max(missing, 0))) is None:
            youngest = self.running[-1]
            self._preempt(youngest)
            step.slices.pop(youngest, None)
            if youngest is sequence:
                return False
        sequence.pages += pages
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        self.running.remove(sequence)
        self._give_back(sequence)
        insort(self.waiting, sequence, key=lambda other: other.arrival)

    def _give_back(self, sequence: Sequence) -> None:
        self._pool.release(sequence.pages)
        sequence.pages = []
        sequence.computed = 0

    def _reserved(self, sequence: Sequence) -> int:
        return self._pool.pages_for(min(sequence.positions, len(sequence.tokens) + RESERVE_TOKENS))

    def _admit(self, sequence: Sequence, step: Step) -> bool:
        if self._will_be_cached(sequence):
            return False
        pool = self._pool
        # The last token is always computed: its logits are wanted.
        limit = 0 if sequence.every_row else len(sequence.tokens) - 1
        prefix = pool.match(sequence.tokens, sequence.chain, limit)
        promised = sum(max(self._reserved(s) - len(s.pages), 0) for s in self.running)
        unused = pool.unused_among(prefix.pages)
        if pool.available - unused - promised < self._reserved(sequence) - len(prefix.pages):
            return False
        pool.share(prefix.pages)
        sequence.pages = list(prefix.pages)
        sequence.computed = len(prefix.pages) * pool.page_tokens
        use = prefix.use
        if prefix.copied:
            held = (prefix.source,)
            pool.share(held)  # so that it is not evicted to make room for its own copy
            target = pool.allocate(1)
            pool.release(list(held))
            if target is None:
                use = "evicted"  # it makes room for the sequence itself
            else:
                step.copies.append((prefix.source, target[0]))
                sequence.pages += target
                sequence.computed = prefix.tokens
        if sequence.cached_tokens is None:
            sequence.cached_tokens, sequence.cache = sequence.computed, use
        self.waiting.remove(sequence)
        insort(self.running, sequence, key=lambda other: other.arrival)
        return True

    def _will_be_cached(self, sequence: Sequence) -> bool:
        """Whether the first page that the cache lacks is being computed by a running sequence: then
        waiting costs less than computing it twice."""
        if sequence.every_row:
            return False
        index = next((i for i, d in enumerate(sequence.chain) if not self._pool.has(d)), None)
        if index is None:
            return False
        size = self._pool.page_tokens
        return any(
            len(other.chain) > index
            and other.chain[index] == sequence.chain[index]
            and other.computed < (index + 1) * size
            for other in self.running
        )
