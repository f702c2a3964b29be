"""Logits processors: functions of a request that change what is sampled from, row by row.

The core samples without giving logits away. The rows of a request with processors come out of it
instead, a copy of [vocab] float32 a token, and are sampled here by the plain sampler: biases,
penalties, constraint and the rest follow what the processors return. A seed's draws may differ in
the last bit from the core's, and drafts are not computed ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Ids
from dataclasses import replace

import numpy as np

from edge_llm.errors import GenerationError
from edge_llm.runner.backends.reference_sampler import NON_FINITE, choose, raw_logprobs
from edge_llm.runner.engine.batch import row_samplers
from edge_llm.runner.engine.scheduler import Slice
from edge_llm.runner.engine.sequence import Sequence
from edge_llm.runner.executor import Float32, StepResult

# Takes the ids so far, prompt and answer, and the raw logits [vocab] float32 of the next token, of
# which it may change its copy; returns logits of the same shape.
LogitsProcessor = Callable[[Ids[int], Float32], Float32]


def sampled_here(
    slices: Mapping[Sequence, Slice],
    result: StepResult,
    sampleable: int,
) -> StepResult:
    """Return ``result`` with the tokens of the sequences that have processors, sampled from what
    these make of the logits. Where a processor fails, that is the cause of its row's error: it ends
    its own sequence alone, once the step is taken in.
    """
    if not any(sequence.processors for sequence in slices):
        return result
    assert result.logits is not None  # such a batch wants them
    ids, logprobs = result.ids.copy(), list(result.logprobs)
    errors = list(result.errors)
    for sequence, part, row in _rows(slices):
        (sampler,) = row_samplers(sequence, part)[-1:]
        raw = result.logits[row]
        try:
            logits = _processed(sequence, raw)
        except BaseException as error:  # also what is meant to end a thread: this one is ours
            failed = GenerationError(f"the request's logits processor failed: {error!r}")
            failed.__cause__ = error
            errors[row] = failed
            continue
        outcome = choose(logits, sampler, sampleable)
        if isinstance(outcome, str):
            none = outcome == NON_FINITE and not (np.isnan(logits) | np.isposinf(logits)).any()
            problem = "no token is left (-inf for all that may be sampled)" if none else outcome
            errors[row] = f"{problem} after the request's logits processors"
            continue
        ids[row] = outcome
        most = sequence.params.top_logprobs
        if most is not None:
            logprobs[row] = raw_logprobs(raw, outcome, most, sampleable)
    return replace(result, ids=ids, logprobs=logprobs, errors=errors)


def _rows(slices: Mapping[Sequence, Slice]) -> Iterator[tuple[Sequence, Slice, int]]:
    """Yield the sequences with processors that sample in this step, and the row of each."""
    row = 0
    for sequence, part in slices.items():
        row += sequence.rows(part.count) + len(part.draft)
        if sequence.processors and sequence.samples and part.count == sequence.remaining:
            yield sequence, part, row - 1


def _processed(sequence: Sequence, raw: Float32) -> Float32:
    logits = raw.copy()
    tokens = tuple(sequence.tokens)
    for processor in sequence.processors:
        returned = processor(tokens, logits)
        expected = f"expected logits of shape {list(raw.shape)}"
        if returned is None:  # which numpy takes for a number
            raise ValueError(f"it returned None, {expected}")
        logits = np.asarray(returned, np.float32)
        if logits.shape != raw.shape:
            raise ValueError(f"it returned logits of shape {list(logits.shape)}, {expected}")
    return logits
