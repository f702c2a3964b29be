"""Who runs next. Pure policy: no arithmetic, no I/O, neither torch nor numpy.

A step holds one token of each sequence that decodes, then drafts behind them, then chunks of
prompts, oldest first, until its budget of tokens is reached: that bounds the wait between two
tokens of a running sequence. While prompts wait, drafts take at most half of what is left. A
sequence that is computed at once may take a whole step.

Clients share alike (`shares.py`). What is left for prompts is parted between those that have some.
Waiting sequences are admitted as clients take turns; the first of a client that has nothing running
may take the place, and the blocks, of the youngest of the client that has most.

A waiting sequence is admitted when the blocks for its tokens and for the next
``RESERVE_TOKENS`` (or fewer, if it may not write that many) are there beyond what running sequences
have reserved in the same way. Short answers therefore never run out of blocks; long ones may, and
then the youngest sequence gives its blocks back and is computed again later. The oldest is never
preempted and every sequence fits the pool alone, so all of them finish. Drafts preempt nobody.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence as Ids
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from edge_llm.runner.engine.blocks import extend_chain
from edge_llm.runner.engine.pool import BlockPool
from edge_llm.runner.engine.sequence import Sequence
from edge_llm.runner.engine.shares import Turns, next_of, portions, who_makes_room

if TYPE_CHECKING:
    from edge_llm.runner.engine.constraints import Mask

RESERVE_TOKENS = 512

# - prefill: known tokens, of a prompt or of what is computed again
# - decode: the last accepted token
# - verify: the last accepted token, and a draft behind it
SliceKind = Literal["prefill", "decode", "verify"]


@dataclass(slots=True)
class Slice:
    """The part of a sequence that a step computes: its next ``count`` known tokens, then ``draft``.
    ``masks`` says which ids the rows that sample may choose, from the first on (empty: all)."""

    kind: SliceKind
    count: int
    draft: Ids[int] = ()
    masks: Ids[Mask] = ()

    @property
    def tokens(self) -> int:
        """Positions that are computed."""
        return self.count + len(self.draft)


@dataclass(slots=True)
class Step:
    """``copies`` (group, source block, target block) come first, in order; then the slices.
    ``tokens`` are the positions that are computed in all of them; ``rows`` those that they may
    want: all of a sequence that wants every row, else one, and one for each token of a draft."""

    copies: list[tuple[int, int, int]] = field(default_factory=list)
    slices: dict[Sequence, Slice] = field(default_factory=dict)
    tokens: int = 0
    rows: int = 0

    def add(self, sequence: Sequence, kind: SliceKind, count: int) -> None:
        """Add the next ``count`` known tokens of ``sequence``."""
        self.slices[sequence] = Slice(kind, count)
        self.tokens += count
        self.rows += count if sequence.every_row else 1

    def extend(self, sequence: Sequence, count: int) -> None:
        """Add ``count`` more known tokens of a sequence that has a slice already."""
        self.slices[sequence].count += count
        self.tokens += count
        self.rows += count if sequence.every_row else 0

    def draft(self, part: Slice, draft: Ids[int]) -> None:
        """Put ``draft``, and no other, behind the last accepted token of a slice of this step."""
        more = len(draft) - len(part.draft)
        self.tokens += more
        self.rows += more
        part.kind, part.draft = "verify" if draft else "decode", draft

    def drop(self, sequence: Sequence) -> None:
        """Leave ``sequence`` out, if it is part of this step."""
        part = self.slices.pop(sequence, None)
        if part is not None:
            self.tokens -= part.tokens
            self.rows -= (part.count if sequence.every_row else 1) + len(part.draft)


class Scheduler:
    """Holds the sequences, waiting and running, each in order of arrival."""

    def __init__(
        self, pool: BlockPool, *, max_sequences: int, step_tokens: int, max_rows: int
    ) -> None:
        self._pool = pool
        self._max_sequences = max_sequences
        self._step_tokens = self._budget = step_tokens
        self._max_rows = max_rows
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.preemptions = 0
        self._turns = Turns()

    def add(self, sequence: Sequence) -> None:
        """Let a new sequence wait for its turn."""
        extend_chain(sequence.chain, sequence.tokens, self._pool.block_size, sequence.root)
        sequence.tables = self._pool.empty_tables()
        sequence.turn = self._turns.give(sequence.client)
        insort(self.waiting, sequence, key=lambda other: other.arrival)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, whatever it was doing; its blocks come back at once."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
            if sequence.cached_tokens is None:
                self._turns.withdraw(sequence, self.waiting)
        self._give_back(sequence)

    def schedule(self, budget: int | None = None) -> Step:
        """Return the next step, of at most ``budget`` tokens (None: ``step_tokens``), which must
        not be less than ``max_sequences``. It holds at least one token if there is any sequence at
        all. An evaluation that asks for chunks gets them whole."""
        self._budget = self._step_tokens if budget is None else min(budget, self._step_tokens)
        step = Step()
        for sequence in list(self.running):
            if sequence.decoding:
                self._add_slice(step, sequence)
        self._add_drafts(step)
        shares = self._shares(step)
        self._add_prompts(step, shares)
        while (waiting := next_of(self.waiting, self.running)) is not None:
            if self._room(step, waiting) is None or not self._begin(waiting, step):
                break
            self._add_slice(step, waiting, shares)
        if shares is not None:
            self._add_prompts(step)  # what a client left
        return step

    def commit(self, sequence: Sequence, end: int) -> None:
        """Note that the tokens of ``sequence`` before position ``end`` are computed and accepted:
        from now on other sequences may find them."""
        if not sequence.at_once:
            self._pool.record(
                sequence.tables,
                sequence.chain,
                sequence.tokens,
                sequence.computed,
                end,
                sequence.root,
            )
        sequence.computed = end

    def restart(self, sequence: Sequence) -> None:
        """Compute the tokens of a running sequence, which are others now, from the beginning, as
        soon as it is its turn. The cache may have some."""
        self.running.remove(sequence)
        self._give_back(sequence)
        sequence.chain.clear()
        extend_chain(sequence.chain, sequence.tokens, self._pool.block_size, sequence.root)
        insort(self.waiting, sequence, key=lambda other: other.arrival)

    def rewind(self, sequence: Sequence) -> None:
        """Forget the positions of ``sequence`` that were computed but not accepted."""
        self._pool.cut(sequence.tables, sequence.computed)
        sequence.draft = ()

    def _room(self, step: Step, sequence: Sequence) -> tuple[int, int] | None:
        """Return the tokens and rows that the step can still take of ``sequence``, None if it is
        full, or has no room for what must be computed at once."""
        alone = sequence.at_once and not step.tokens
        whole = alone or sequence.chunk is not None
        tokens = (self._step_tokens if whole else self._budget) - step.tokens
        rows, least = self._max_rows - step.rows, sequence.remaining if sequence.at_once else 1
        return (tokens, rows) if tokens >= least and rows > 0 else None

    def _shares(self, step: Step) -> dict[str, int] | None:
        """Return the tokens that each client may have of what is left for prompts; None if no more
        than one has any."""
        wanted: dict[str, int] = {}
        for sequence in (*self.running, *self.waiting):
            if not sequence.decoding:
                wanted[sequence.client] = wanted.get(sequence.client, 0) + sequence.remaining
        return portions(wanted, self._budget - step.tokens) if len(wanted) > 1 else None

    def _add_prompts(self, step: Step, shares: dict[str, int] | None = None) -> None:
        for sequence in list(self.running):
            if not sequence.decoding and sequence in self.running:
                self._add_slice(step, sequence, shares)

    def _add_slice(
        self, step: Step, sequence: Sequence, shares: dict[str, int] | None = None
    ) -> None:
        """Add the next tokens of a sequence, as many as there is room for, and as are left of what
        its client has of ``shares`` (None: no matter)."""
        room = self._room(step, sequence)
        part = step.slices.get(sequence)
        if room is None or (part is not None and (sequence.every_row or sequence.at_once)):
            return
        tokens, rows = room
        count = there = 0 if part is None else part.count
        count = min(sequence.remaining, there + tokens)
        if sequence.every_row:
            count = min(count, rows, count if sequence.chunk is None else sequence.chunk)
        if shares is not None and not (sequence.at_once or sequence.chunk):
            count = min(count, shares.get(sequence.client, 0))
            shares[sequence.client] = shares.get(sequence.client, 0) - count
        if count <= there or not self._grow(sequence, sequence.computed + count, step):
            return
        if part is None:
            step.add(sequence, "decode" if sequence.decoding else "prefill", count)
        else:
            step.extend(sequence, count - there)

    def _add_drafts(self, step: Step) -> None:
        """Put drafts behind the tokens of sequences that decode, as far as there is room."""
        drafted = [sequence for sequence in step.slices if sequence.draft]
        if not drafted:
            return
        tokens = self._budget - step.tokens
        rows = self._max_rows - step.rows
        if self.waiting or len(step.slices) < len(self.running):
            tokens, rows = tokens // 2, rows // 2
        for sequence in drafted:
            part = step.slices[sequence]
            room = min(len(sequence.draft), tokens, rows)
            while room > 0 and not self._pool.grow(
                sequence.tables, sequence.computed + part.count + room
            ):
                room -= 1
            if room > 0:
                step.draft(part, sequence.draft[:room])
                tokens, rows = tokens - room, rows - room

    def _grow(self, sequence: Sequence, tokens: int, step: Step) -> bool:
        """Give ``sequence`` the blocks for its first ``tokens`` tokens; return False if it was the
        youngest itself and had to go."""
        while not self._pool.grow(sequence.tables, tokens):
            youngest = self.running[-1]
            self._preempt(youngest)
            step.drop(youngest)
            if youngest is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        self.running.remove(sequence)
        self._give_back(sequence)
        insort(self.waiting, sequence, key=lambda other: other.arrival)

    def _give_back(self, sequence: Sequence) -> None:
        if sequence.tables:  # else it was never taken in
            self._pool.cut(sequence.tables, 0)
        sequence.forget()

    def _begin(self, sequence: Sequence, step: Step) -> bool:
        """Admit a waiting sequence, in another's place if need be."""
        while len(self.running) >= self._max_sequences or not self._admit(sequence, step):
            other = who_makes_room(self.running, sequence.client)
            if other is None or self._will_be_cached(sequence):
                return False
            self._preempt(other)
            step.drop(other)
        return True

    def _reserved(self, sequence: Sequence) -> int:
        return min(sequence.positions, len(sequence.tokens) + RESERVE_TOKENS)

    def _admit(self, sequence: Sequence, step: Step) -> bool:
        if self._will_be_cached(sequence):
            return False
        pool = self._pool
        # The last token is always computed: its logits are wanted.
        limit = 0 if sequence.whole else len(sequence.tokens) - 1
        prefix = pool.match(sequence.tokens, sequence.chain, limit, sequence.root)
        promised = [pool.lacking(other.tables, self._reserved(other)) for other in self.running]
        if not pool.admits(prefix, self._reserved(sequence), promised):
            return False
        sequence.tables = pool.share(prefix)
        sequence.computed, use = prefix.whole, prefix.use
        if prefix.sources:
            copies = pool.copy(prefix, sequence.tables)
            if copies is None:
                use = "evicted"  # it makes room for the sequence itself
                pool.cut(sequence.tables, prefix.whole)
            else:
                step.copies += copies
                sequence.computed = prefix.tokens
        if sequence.cached_tokens is None:
            sequence.cached_tokens, sequence.cache = sequence.computed, use
        self.waiting.remove(sequence)
        self._turns.begin(sequence.turn)
        insort(self.running, sequence, key=lambda other: other.arrival)
        return True

    def _will_be_cached(self, sequence: Sequence) -> bool:
        """Return True if the first block that the cache lacks is being computed by a running
        sequence: then waiting costs less than computing it twice."""
        if sequence.whole:
            return False
        index = next((i for i, d in enumerate(sequence.chain) if not self._pool.has(d)), None)
        if index is None:
            return False
        size = self._pool.block_size
        return any(
            len(other.chain) > index
            and other.chain[index] == sequence.chain[index]
            and other.computed < (index + 1) * size
            for other in self.running
        )
