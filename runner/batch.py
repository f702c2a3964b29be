"""From the scheduler's slices to the flat batch of the graph contract."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_llm.runner.executor import Batch, RowSampler
from edge_llm.runner.sequence import Sequence


def build_batch(slices: Mapping[Sequence, int]) -> Batch:
    """The next ``count`` tokens of each sequence, one after another. A row is wanted where a
    sequence's known tokens end (to sample the next) and for every token of an evaluation."""
    total = sum(slices.values())
    tokens = np.empty(total, np.int32)
    positions = np.empty(total, np.int32)
    owners = np.empty(total, np.int32)
    width = max(len(sequence.pages) for sequence in slices)
    page_tables = np.full((len(slices), width), -1, np.int32)
    rows: list[int] = []
    samplers: list[RowSampler | None] = []
    begin = 0
    for index, (sequence, count) in enumerate(slices.items()):
        end, first = begin + count, sequence.computed
        known = np.array(sequence.tokens, np.int32)
        tokens[begin:end] = known[first : first + count]
        positions[begin:end] = np.arange(first, first + count)
        owners[begin:end] = index
        page_tables[index, : len(sequence.pages)] = sequence.pages
        if sequence.want_logits:
            rows.extend(range(begin, end))
            samplers.extend([None] * count)
        elif count == sequence.remaining:
            rows.append(end - 1)
            samplers.append(
                RowSampler(
                    params=sequence.params,
                    seed=sequence.seed,
                    counter=sequence.completion_length,
                    history=known,
                    prompt_length=sequence.prompt_length,
                )
            )
        begin = end
    return Batch(
        tokens=tokens,
        positions=positions,
        sequences=owners,
        rows=np.array(rows, np.int32),
        page_tables=page_tables,
        samplers=samplers,
        want_logits=any(sequence.want_logits for sequence in slices),
    )
