"""A second, smaller program that drafts for the first: it has the same vocabulary, and says what it
would go on with.

Its states are blocks of a pool of its own. They follow what the sequences say: what of them still
holds is kept, what does not is forgotten, and what is missing is computed in steps that hold up
nobody for long. Where blocks lack, or the program fails, there are no drafts; it changes no result.
"""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from edge_llm.runner.engine.batch import row_sampler
from edge_llm.runner.engine.blocks import extend_chain
from edge_llm.runner.engine.crew import Staff
from edge_llm.runner.engine.pool import BlockPool
from edge_llm.runner.engine.sequence import Sequence
from edge_llm.runner.executor import Batch, Executor, Int32, Segment
from edge_llm.runner.sampling import SamplingParams

READY_TOKENS = 16  # that may be missing where a draft begins, at most; more are computed before
_CATCH_UP_TOKENS = 128  # at a time
_LEARNED = 1 / 8  # weight of a step in what one takes

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _State:
    """What the program has of a sequence: ``tokens`` are those whose states are in ``tables``, the
    first ``accepted`` of which are the sequence's for good. Of a ``foreign`` sequence, which has
    tokens that the program knows no vector of, it has nothing."""

    params: SamplingParams
    tables: list[list[int]]
    chain: list[bytes] = field(default_factory=list)
    tokens: array[int] = field(default_factory=lambda: array("i"))
    accepted: int = 0
    foreign: bool = False


class DraftProgram:
    """Runs the program for the drafts of an engine, on its thread."""

    def __init__(
        self,
        executor: Executor,
        *,
        windows: tuple[int, ...],
        block_size: int,
        context: int,
        vocab: int,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """Take over ``executor``, whose program has a ``context`` and a ``vocab`` of its own;
        ``close`` is called after it was closed."""
        limits = executor.limits
        self._executor = executor
        self._pool = BlockPool(
            limits.blocks, windows or (0,) * len(limits.blocks), block_size, limits.max_tokens
        )
        self._ready = min(READY_TOKENS, limits.max_tokens // limits.max_sequences)
        self._context = context
        self._vocab = vocab
        self._close = close
        self._states: dict[Sequence, _State] = {}
        self._seconds = 0.0
        self.failed = False
        self.staff: Callable[[int], Staff] = lambda tokens: Staff()  # of a step of so many

    @property
    def seconds(self) -> float:
        """What a step of one token a sequence takes; 0: none was run yet."""
        return self._seconds

    def ready(self, sequence: Sequence, draft: int) -> bool:
        """Return whether a draft of so many tokens can begin now: there is room for it, and little
        is missing before it. What does not hold any more is forgotten."""
        if self.failed:
            return False
        end = len(sequence.tokens) + draft - 1
        if end > self._context:
            return False
        state = self._followed(sequence)
        if state.foreign:
            return False
        missing = len(sequence.tokens) - len(state.tokens)
        return missing <= self._ready and self._pool.grow(state.tables, end)

    def catch_up(self, sequences: Iterable[Sequence]) -> None:
        """Compute some of what is missing of sequences that were not ready, in one step."""
        room = min(_CATCH_UP_TOKENS, self._executor.limits.max_tokens)
        parts: list[tuple[Sequence, _State, int]] = []
        for sequence in sequences:
            if self.failed or (state := self._states.get(sequence)) is None or state.foreign:
                continue
            # What a draft begins with is computed with it.
            count = min(room, len(sequence.tokens) - 1 - len(state.tokens))
            end = len(state.tokens) + count
            if count > 0 and end <= self._context and self._pool.grow(state.tables, end):
                parts.append((sequence, state, end))
                room -= count
        if not parts:
            return
        segments = [
            Segment(np.array(sequence.tokens[len(state.tokens) : end], np.int32))
            for sequence, state, end in parts
        ]
        if self._step([state for _, state, _ in parts], segments) is None:
            return
        for sequence, state, end in parts:
            state.tokens += sequence.tokens[len(state.tokens) : end]
            self._accept(state, sequence, end)

    def predicted(self, growing: Mapping[Sequence, list[int]]) -> dict[Sequence, int]:
        """Return the next token behind each draft so far, where there can be one; all of them were
        `ready`. The random number is that of the row that will check it."""
        states, segments, paths = [], [], []
        for sequence, draft in growing.items():
            state = self._states[sequence]
            path = sequence.tokens + array("i", draft)
            sampler = row_sampler(sequence, np.frombuffer(path, np.int32), len(draft))
            sampler = replace(sampler, params=state.params, allowed=None, breakers=None)
            states.append(state)
            paths.append(path)
            new = np.frombuffer(path, np.int32)[len(state.tokens) :]
            segments.append(Segment(new, [sampler]))
        started = time.perf_counter()
        ids = self._step(states, segments)
        if ids is None:
            return {}
        if all(len(segment.tokens) == 1 for segment in segments):
            took = time.perf_counter() - started
            known = self._seconds or took
            self._seconds = known + (min(took, 3 * known) - known) * _LEARNED
        for state, path in zip(states, paths, strict=True):
            state.tokens += path[len(state.tokens) :]
        return {s: token for s, token in zip(growing, ids.tolist(), strict=True) if token >= 0}

    def forget(self, sequence: Sequence) -> None:
        """Give back what is kept for a sequence that has ended; its prompt may still be found."""
        if (state := self._states.pop(sequence, None)) is not None:
            self._pool.cut(state.tables, 0)

    def close(self) -> None:
        """Close the executor."""
        self._executor.close()
        self._close()

    def _step(self, states: list[_State], segments: list[Segment]) -> Int32 | None:
        """Run a step; return the ids of its rows, or None if it failed: then there are no more."""
        width = max(len(state.tables[0]) for state in states)
        tables = np.full((len(states[0].tables), len(states), width), -1, np.int32)
        placed = []
        for index, (state, segment) in enumerate(zip(states, segments, strict=True)):
            for group, table in enumerate(state.tables):
                tables[group, index, : len(table)] = table
            placed.append(replace(segment, first=len(state.tokens), sequence=index))
        try:
            workers, patient = self.staff(sum(len(segment.tokens) for segment in placed))
            batch = Batch.of(*placed, block_tables=tuple(tables), workers=workers, patient=patient)
            return self._executor.step(batch).ids
        except Exception:
            _log.exception("the draft program failed; there are no more of its drafts")
            self.failed = True
            return None

    def _followed(self, sequence: Sequence) -> _State:
        """Return what the program has of a sequence, as far as it is what that says now. The last
        token is always computed: what follows it is wanted."""
        state = self._states.get(sequence)
        last = len(sequence.tokens) - 1
        if (
            state is not None
            and state.tokens[: state.accepted] != sequence.tokens[: state.accepted]
        ):
            self.forget(sequence)  # its window has moved on
            state = None
        if state is None:
            state = self._states[sequence] = self._begun(sequence, last)
            return state
        end = state.accepted
        while end < min(len(state.tokens), last) and state.tokens[end] == sequence.tokens[end]:
            end += 1
        del state.tokens[end:]
        self._accept(state, sequence, end)
        self._pool.cut(state.tables, end)
        return state

    def _begun(self, sequence: Sequence, last: int) -> _State:
        """Return a state with what the pool has of the first ``last`` tokens of a sequence."""
        if max(sequence.tokens) >= self._vocab:  # padding of a vocabulary, which prompts may have
            return _State(sequence.params, self._pool.empty_tables(), foreign=True)
        chain: list[bytes] = []
        extend_chain(chain, sequence.tokens, self._pool.block_size)
        prefix = self._pool.match(sequence.tokens, chain, min(last, self._context))
        tables = self._pool.share(prefix)
        bias = sequence.params.logit_bias
        params = replace(
            sequence.params,
            top_logprobs=None,
            logit_bias={token: value for token, value in bias.items() if token < self._vocab},
        )
        state = _State(params, tables, chain, sequence.tokens[: prefix.whole], prefix.whole)
        if prefix.sources and (copies := self._pool.copy(prefix, tables)) is not None:
            for group, source, target in copies:
                self._executor.copy_block(group, source, target)
            state.tokens = sequence.tokens[: prefix.tokens]
            state.accepted = prefix.tokens
        elif prefix.sources:
            self._pool.cut(tables, prefix.whole)
        return state

    def _accept(self, state: _State, sequence: Sequence, end: int) -> None:
        if end > state.accepted:
            self._pool.record(state.tables, state.chain, sequence.tokens, state.accepted, end)
            state.accepted = end
