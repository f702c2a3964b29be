"""From the scheduler's slices to the flat batch of the graph contract."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_llm.runner.executor import Batch, Int32, RowSampler
from edge_llm.runner.scheduler import Slice
from edge_llm.runner.sequence import Sequence

_NO_HISTORY = np.zeros(0, np.int32)


def build_batch(slices: Mapping[Sequence, Slice]) -> Batch:
    """Put the slices one after another. A row is wanted where a sequence's known tokens end (to
    sample the next), for every token of its draft, for every token of an evaluation, and for every
    token of a prompt that is scored."""
    total = sum(part.tokens for part in slices.values())
    tokens = np.empty(total, np.int32)
    positions = np.empty(total, np.int32)
    owners = np.empty(total, np.int32)
    groups = len(next(iter(slices)).tables)
    width = max(len(sequence.tables[0]) for sequence in slices)
    block_tables = np.full((groups, len(slices), width), -1, np.int32)
    rows: list[int] = []
    samplers: list[RowSampler | None] = []
    begin = 0
    for index, (sequence, part) in enumerate(slices.items()):
        end, first = begin + part.tokens, sequence.computed
        path = np.array(sequence.tokens, np.int32)
        if part.draft:
            path = np.concatenate((path, np.array(part.draft, np.int32)))
        tokens[begin:end] = path[first : first + part.tokens]
        positions[begin:end] = np.arange(first, first + part.tokens)
        owners[begin:end] = index
        for group, table in enumerate(sequence.tables):
            block_tables[group, index, : len(table)] = table
        rows.extend(range(end - len(part.draft) - sequence.rows(part.count), end))
        if sequence.want_logits:
            samplers.extend([None] * part.count)
        else:
            if sequence.every_row:
                samplers.extend(_scorers(sequence, path, part.count))
            if part.count == sequence.remaining:
                samplers.extend(_last(sequence, path, part))
        begin = end
    return Batch(
        tokens=tokens,
        positions=positions,
        sequences=owners,
        rows=np.array(rows, np.int32),
        block_tables=tuple(block_tables),
        samplers=samplers,
        want_logits=any(sequence.want_logits for sequence in slices),
    )


def _last(sequence: Sequence, path: Int32, part: Slice) -> list[RowSampler | None]:
    """Return the samplers of the rows after all known tokens and after each token of the draft."""
    if not sequence.samples:
        return [None] if sequence.every_row else []
    known, counter = len(sequence.tokens), sequence.completion_length
    return [
        RowSampler(
            params=sequence.params,
            seed=sequence.seed,
            counter=counter + ahead,
            history=path[: known + ahead],
            prompt_length=sequence.prompt_length,
            allowed=part.masks[ahead] if part.masks else None,
        )
        for ahead in range(len(part.draft) + 1)
    ]


def _scorers(sequence: Sequence, known: Int32, count: int) -> list[RowSampler]:
    """Return what asks for the log-probability of the token that follows each of the next
    ``count``; no logits leave the executor."""
    if sequence.scorer is None:
        raise AssertionError("a sequence that is not scored")
    first = sequence.computed
    return [
        RowSampler(
            params=sequence.scorer,
            seed=0,
            counter=0,
            history=_NO_HISTORY,
            prompt_length=0,
            target=target,
        )
        for target in known[first + 1 : first + 1 + count].tolist()
    ]
