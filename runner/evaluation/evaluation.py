"""Teacher-forced evaluation of a program, alone or beside a reference, on windows of a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np

from edge_llm.errors import GenerationError, RequestError
from edge_llm.program.file import Program
from edge_llm.runner.adapters.plan import Adapted
from edge_llm.runner.backends.registry import block_tables, blocks_of, open_executor
from edge_llm.runner.config import DEFAULT_STEP_TOKENS
from edge_llm.runner.engine.requests import check_predicts
from edge_llm.runner.evaluation.journal import Journal
from edge_llm.runner.evaluation.quality import (
    Comparison,
    Float64,
    Quality,
    compare_rows,
    summarize,
    summarize_comparison,
)
from edge_llm.runner.executor import Batch, Executor, Float32, Int32, Limits, RowSampler, Segment
from edge_llm.runner.sampling import SamplingParams

Progress: TypeAlias = Callable[[int, int], None]

_LOGITS_BYTES = 32 * 1024 * 1024  # bounds the logits of one step
_SCORER = SamplingParams(temperature=0.0, top_logprobs=0)


class Reader:
    """Scores one text at a time, in steps; see `open_reader`.

    Attributes:
        context: the tokens that a text may have.
        vocab: the width of a row of logits.
    """

    def __init__(self, executor: Executor, context: int, vocab: int, adapter: int = -1) -> None:
        self.context = context
        self.vocab = vocab
        self._executor = executor
        self._adapter = adapter
        self._tables = block_tables(executor.limits.blocks)
        self._rows = min(executor.limits.max_tokens, executor.limits.max_rows)

    def losses(self, ids: Int32, first: int) -> Float64:
        """Return the negative log-likelihoods [n], in nats, of the tokens after position ``first``.
        No logits leave the executor.

        Raises:
            GenerationError: logits are not finite.
            NativeError: the core failed.
        """
        losses: list[float] = []
        for begin, end, rows in self._steps(ids, first):
            samplers = [
                RowSampler(_SCORER, target=target)
                for target in ids[begin + 1 : end + 1][rows].tolist()
            ]
            result = self._executor.step(self._batch(ids, begin, end, samplers))
            for position, (found, error) in enumerate(
                zip(result.logprobs, result.errors, strict=True), max(begin, first)
            ):
                if found is None or error is not None:
                    raise GenerationError(f"position {position} has no log-probability: {error}")
                losses.append(-found.logprob)
        return np.array(losses)

    def logits(self, ids: Int32, first: int) -> Iterator[Float32]:
        """Yield logits [n, vocab] that follow one another: together the rows of the positions
        ``first`` to the last but one, each about the token after it. Readers of one vocabulary
        yield the same numbers of rows.

        Raises:
            NativeError: the core failed.
        """
        for begin, end, rows in self._steps(ids, first):
            batch = self._batch(ids, begin, end, [None] * len(rows), want_logits=True)
            result = self._executor.step(batch)
            if len(rows) and result.logits is not None:
                yield result.logits

    def _steps(self, ids: Int32, first: int) -> Iterator[tuple[int, int, Int32]]:
        """Yield begin and end of each step's tokens, and its wanted rows [R]."""
        for begin in range(0, len(ids) - 1, self._rows):
            end = min(begin + self._rows, len(ids) - 1)
            yield begin, end, np.arange(max(0, first - begin), end - begin, dtype=np.int32)

    def _batch(
        self,
        ids: Int32,
        begin: int,
        end: int,
        samplers: Sequence[RowSampler | None],
        *,
        want_logits: bool = False,
    ) -> Batch:
        piece = Segment(ids[begin:end], samplers, begin, adapter=self._adapter)
        return Batch.of(piece, block_tables=self._tables, want_logits=want_logits)


@contextmanager
def open_reader(
    program: Program,
    window: int,
    *,
    threads: int = 0,
    backend: str = "native",
    beside: Adapted | None = None,
) -> Iterator[Reader]:
    """Start an executor with room for one text of ``window`` tokens, and free it at the end. It
    reads with the first adapter of ``beside``.

    Raises:
        RequestError: the window is shorter than two tokens, or longer than the program's context;
            the program is for vectors alone.
        ConfigError: there is no such backend.
        MissingDependencyError: the backend needs a package that is not installed.
        NativeError: the native core is missing, or refused the program.
    """
    plan = program.plan
    check_predicts(bidirectional=plan.bidirectional)
    if not 2 <= window <= plan.context:
        raise RequestError(f"the window is {window}, expected 2 to {plan.context} tokens")
    executor = open_executor(
        program,
        Limits(
            max_tokens=min(DEFAULT_STEP_TOKENS, window),
            max_rows=min(DEFAULT_STEP_TOKENS, window, max(1, _LOGITS_BYTES // (4 * plan.vocab))),
            max_sequences=1,
            blocks=blocks_of(plan, window, name=backend),
            kv_dtype=program.documents.model.kv_dtype,
            threads=threads,
        ),
        name=backend,
        beside=beside,
    )
    try:
        yield Reader(executor, plan.context, plan.vocab, -1 if beside is None else 0)
    finally:
        executor.close()


def evaluate(
    reader: Reader,
    ids: Sequence[int],
    *,
    window: int,
    windows: int,
    second_half: bool = False,
    reference: Reader | None = None,
    journal: Journal | None = None,
    progress: Progress = lambda done, total: None,
) -> Quality:
    """Evaluate on the first ``windows`` whole windows of ``window`` tokens, which do not overlap
    and have nothing before them.

    Every token of a window but the first is scored; with ``second_half`` those from position
    ``window // 2`` on. The reader and the reference take turns, step by step. Windows that the
    ``journal`` has from a former run are not computed again.

    Raises:
        RequestError: ``windows`` is below 1, the text is shorter than one window, the reference
            has another vocabulary, or the journal cannot be written or has no such records.
        GenerationError: logits are not finite.
        NativeError: the core failed.
    """
    if windows < 1:
        raise RequestError(f"windows is {windows}, expected at least 1")
    if reference is not None and reference.vocab != reader.vocab:
        raise RequestError(
            f"the reference has a vocabulary of {reference.vocab} tokens, "
            f"expected the program's {reader.vocab}"
        )
    count = min(windows, len(ids) // window)
    if count == 0:
        raise RequestError(f"the text has {len(ids)} tokens, expected at least {window}")
    texts = np.asarray(ids[: count * window], np.int32).reshape(count, window)
    first = window // 2 - 1 if second_half else 0  # the row about the first scored token
    found: list[Comparison] = []
    journal = journal or Journal(None, {})
    for number, text in enumerate(texts):
        name = f"window {number}"
        if name not in journal.records:
            if reference is None:
                scored = Comparison.of_losses(reader.losses(text, first))
            else:
                scored = _compare(reader, reference, text, first)
            journal.add({"id": name, **scored.record()})
        found.append(Comparison.of(journal.records[name], window - 1 - first))
        progress(number + 1, count)
    if reference is None:
        return summarize(np.stack([one.losses for one in found]))
    return summarize_comparison(found)


def _compare(reader: Reader, reference: Reader, text: Int32, first: int) -> Comparison:
    parts, place = [], first + 1
    pairs = zip(reader.logits(text, first), reference.logits(text, first), strict=True)
    for ours, theirs in pairs:
        parts.append(compare_rows(ours, theirs, text[place : place + len(ours)]))
        place += len(ours)
    return Comparison(
        losses=np.concatenate([part.losses for part in parts]),
        reference_losses=np.concatenate([part.reference_losses for part in parts]),
        divergences=np.concatenate([part.divergences for part in parts]),
        agrees=np.concatenate([part.agrees for part in parts]),
    )
