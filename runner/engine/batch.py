"""From the scheduler's slices to the flat batch of the graph contract."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

import numpy as np

from edge_llm.runner.engine.constraints import Mask
from edge_llm.runner.engine.crew import Staff
from edge_llm.runner.engine.scheduler import Slice
from edge_llm.runner.engine.sequence import Sequence
from edge_llm.runner.executor import Batch, Int32, RowSampler, Segment


def build_batch(slices: Mapping[Sequence, Slice], staff: Staff) -> Batch:
    """Put the slices one after another. A row is wanted where a sequence's known tokens end (to
    sample the next), for every token of its draft, for every token of an evaluation, and for every
    token of a prompt that is scored. ``staff`` computes it."""
    groups = len(next(iter(slices)).tables)
    width = max(len(sequence.tables[0]) for sequence in slices)
    block_tables = np.full((groups, len(slices), width), -1, np.int32)
    segments: list[Segment] = []
    for index, (sequence, part) in enumerate(slices.items()):
        for group, table in enumerate(sequence.tables):
            block_tables[group, index, : len(table)] = table
        first = sequence.computed
        path = np.frombuffer(sequence.tokens + array("i", part.draft), np.int32)
        samplers = _samplers(sequence, path, part)
        if sequence.processors:  # sampled outside the core, see processors.py
            samplers = [None if item is not None and item.target < 0 else item for item in samplers]
        hidden = sequence.hidden_rows(part.count)
        tokens = path[first : first + part.tokens]
        segments.append(Segment(tokens, samplers, first, index, hidden, sequence.adapter))
    return Batch.of(
        *segments,
        block_tables=tuple(block_tables),
        want_logits=any(sequence.want_logits or sequence.processors for sequence in slices),
        workers=staff.workers,
        patient=staff.patient,
    )


def build_draft(drafts: Mapping[Sequence, list[int]], staff: Staff) -> Batch:
    """Return the step of the draft method that gives the next token of each of ``drafts``, behind
    what these have so far; their sequences' other tokens are computed but for the last. A row has
    the random number of the row that will check it."""
    groups = len(next(iter(drafts)).tables)
    width = max(len(sequence.tables[0]) for sequence in drafts)
    block_tables = np.full((groups, len(drafts), width), -1, np.int32)
    segments: list[Segment] = []
    for index, (sequence, draft) in enumerate(drafts.items()):
        for group, table in enumerate(sequence.tables):
            block_tables[group, index, : len(table)] = table
        path = np.frombuffer(sequence.tokens + array("i", draft), np.int32)
        sampler = row_sampler(sequence, path, len(draft))
        segments.append(Segment(path[-1:], [sampler], len(path) - 1, index))
    return Batch.of(
        *segments,
        block_tables=tuple(block_tables),
        draft=True,
        workers=staff.workers,
        patient=staff.patient,
    )


def row_samplers(sequence: Sequence, part: Slice) -> list[RowSampler]:
    """Return the samplers of the wanted rows of a slice that samples, the last one its next
    token's."""
    path = np.frombuffer(sequence.tokens, np.int32)
    return [item for item in _samplers(sequence, path, part) if item is not None]


def _samplers(sequence: Sequence, path: Int32, part: Slice) -> list[RowSampler | None]:
    """Return the samplers of the wanted rows of a slice. ``path``: all known tokens of its
    sequence, then the draft."""
    if sequence.want_logits:
        return [None] * sequence.rows(part.count)
    samplers: list[RowSampler | None] = []
    if sequence.scorer is not None and sequence.every_row:
        first = sequence.computed + 1  # a row is about the token that follows
        targets = path[first : first + part.count].tolist()
        samplers += [RowSampler(sequence.scorer, target=target) for target in targets]
    if part.count < sequence.remaining:
        return samplers
    if not sequence.samples:
        return [*samplers, None] if sequence.every_row else []
    return samplers + [
        row_sampler(sequence, path, ahead, _allowed(sequence, part, ahead))
        for ahead in range(len(part.draft) + 1)
    ]


def row_sampler(
    sequence: Sequence, path: Int32, ahead: int, allowed: Mask | None = None
) -> RowSampler:
    """Return the sampler of the row behind so many tokens of a draft; ``path`` begins with them and
    all that is known before."""
    return RowSampler(
        params=sequence.params,
        seed=sequence.seed,
        counter=sequence.completion_length + ahead,
        history=path[: len(sequence.tokens) + ahead],
        prompt_length=sequence.prompt_held,
        allowed=allowed,
        breakers=sequence.breakers,
    )


def _allowed(sequence: Sequence, part: Slice, ahead: int) -> Mask | None:
    """Return the mask of the row after so many tokens of the draft. Where a constraint allows
    nothing but the end, the answer ends, however short it is."""
    mask = part.masks[ahead] if part.masks else None
    early = sequence.completion_length + ahead < sequence.params.min_tokens
    if sequence.unended is None or not early:
        return mask
    if mask is None:
        return sequence.unended
    both = mask & sequence.unended
    return both if both.any() else mask
