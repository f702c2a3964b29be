"""The greedy predictions of a program's draft method: its part of the golden record."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_llm.errors import GenerationError
from edge_llm.runner.executor import Batch, Executor, Int32, RowSampler, Segment
from edge_llm.runner.sampling import SamplingParams

DRAFTED = 3  # tokens behind each text
_GREEDY = SamplingParams(temperature=0.0)


def drafts_after(
    executor: Executor, tables: tuple[Int32, ...], texts: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Return the `DRAFTED` tokens that the draft method predicts behind each text (of at least one
    token), fewer where the context ends; ``tables`` are those of one sequence.

    Raises:
        GenerationError: the method computes logits that are not finite.
    """
    return [_drafts_after(executor, tables, text) for text in texts]


def _drafts_after(executor: Executor, tables: tuple[Int32, ...], text: Sequence[int]) -> list[int]:
    if len(text) > 1:
        executor.step(Batch.of(Segment(text[:-1]), block_tables=tables))
    path = list(text)
    while len(path) < min(len(text) + DRAFTED, executor.limits.context):
        sampler = RowSampler(_GREEDY, history=np.array(path, np.int32))
        segment = Segment(path[-1:], [sampler], len(path) - 1)
        result = executor.step(Batch.of(segment, block_tables=tables, draft=True))
        if (error := result.errors[0]) is not None:
            raise GenerationError(f"the draft method fails on a fixed prompt: {error}")
        path.append(int(result.ids[0]))
    return path[len(text) :]
